"""Asking many actors at once, and taking the replies as they come."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from ultra.actors import (
    Actor,
    ActorCrashed,
    ActorOptions,
    ActorStopped,
    AskGroup,
    AskResult,
    Failure,
    InboxFull,
    Message,
)
from ultra.supervisor import ActorSystem, Backoff


class After(Message[str], frozen=True):
    """Answered with `text` after so many seconds."""

    seconds: float
    text: str = "answer"


class Replier(Actor):
    """Answers `After`; counts the handlers that were cancelled."""

    cancelled = 0
    options = ActorOptions(concurrency=8, cancel_abandoned=True)

    async def receive(self, message: object) -> str | Failure:
        assert isinstance(message, After)
        try:
            await trio.sleep(message.seconds)
        except trio.Cancelled:
            type(self).cancelled += 1
            raise
        return Failure(KeyError("told to")) if message.text == "fail" else message.text


@pytest.fixture(autouse=True)
def nothing_was_cancelled() -> None:
    Replier.cancelled = 0


async def test_replies_come_in_the_order_of_their_arrival(autojump_clock: MockClock) -> None:
    async with ActorSystem() as system:
        ref = system.spawn(Replier)
        with AskGroup[str, str]() as asks:
            for key, seconds in (("slow", 3), ("fast", 1), ("middle", 2)):
                asks.ask(ref, After(seconds, key.upper()), key)
            assert len(asks) == 3
            replies = [await asks.next() for _ in range(3)]
        assert [(reply.key, reply.value) for reply in replies] == [
            ("fast", "FAST"),
            ("middle", "MIDDLE"),
            ("slow", "SLOW"),
        ]
        assert len(asks) == 0


async def test_a_failure_is_a_reply_with_an_error(autojump_clock: MockClock) -> None:
    async with ActorSystem() as system:
        ref = system.spawn(Replier)
        with AskGroup[int, str]() as asks:
            asks.ask(ref, After(1, "fail"), 1)
            reply = await asks.next()
    assert reply.value is None
    assert isinstance(reply.error, KeyError)


async def test_an_actor_that_has_ended_or_is_full_is_a_reply_too() -> None:
    class Small(Replier):
        options = ActorOptions(capacity=1, overflow="reject")

    async with ActorSystem() as system:
        ended = system.spawn(Replier)
        await ended.stop()
        full = system.spawn(Small)
        full.tell(After(0))
        with AskGroup[str, str]() as asks:
            asks.ask(ended, After(0), "ended")
            asks.ask(full, After(0), "full")
            replies = [await asks.next(), await asks.next()]
    assert [(reply.key, type(reply.error)) for reply in replies] == [
        ("ended", ActorStopped),
        ("full", InboxFull),
    ]


async def test_an_ask_waits_for_room_where_the_actor_declares_so(autojump_clock: MockClock) -> None:
    class Narrow(Replier):
        options = ActorOptions(capacity=1, cancel_abandoned=True)

    async with ActorSystem() as system:
        ref = system.spawn(Narrow)
        with AskGroup[int, str]() as asks:
            for number in range(3):
                asks.ask(ref, After(1), number)
            assert [(await asks.next()).key for _ in range(3)] == [0, 1, 2]
            for number in range(3):
                asks.ask(ref, After(1), number)
            await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
        snapshot = ref.snapshot()
        assert (snapshot.queued, snapshot.in_flight) == (0, 0)


async def test_leaving_the_block_cancels_the_handlers_and_later_replies_reach_nobody(
    autojump_clock: MockClock,
) -> None:
    heard: list[AskResult[int, str]] = []
    async with ActorSystem() as system:
        ref = system.spawn(Replier)
        with AskGroup[int, str](heard.append) as asks:
            for number in range(3):
                asks.ask(ref, After(number), number)
            await trio.sleep(0.5)
            assert asks.unanswered == (1, 2)
        await trio.sleep(10)
        assert ref.snapshot().in_flight == 0
    assert [reply.key for reply in heard] == [0]
    assert Replier.cancelled == 2


async def test_a_handler_that_is_not_cancelled_replies_to_nobody(autojump_clock: MockClock) -> None:
    class Stubborn(Replier):
        options = ActorOptions(concurrency=8, cancel_abandoned=False)

    heard: list[AskResult[int, str]] = []
    async with ActorSystem() as system:
        ref = system.spawn(Stubborn)
        with AskGroup[int, str](heard.append) as asks:
            asks.ask(ref, After(1), 1)
        await trio.sleep(2)
        assert ref.snapshot().handled == 1
    assert heard == []
    assert len(asks) == 0


async def test_a_cancelled_wait_has_taken_no_reply(autojump_clock: MockClock) -> None:
    async with ActorSystem() as system:
        ref = system.spawn(Replier)
        with AskGroup[int, str]() as asks:
            asks.ask(ref, After(2), 1)
            with trio.move_on_after(1):
                await asks.next()
            assert (len(asks), asks.unanswered) == (1, (1,))
            assert (await asks.next()).value == "answer"


async def test_replies_that_came_before_a_wait_was_cancelled_can_still_be_taken(
    autojump_clock: MockClock,
) -> None:
    async with ActorSystem() as system:
        ref = system.spawn(Replier)
        with AskGroup[int, str]() as asks:
            for number in range(5):
                asks.ask(ref, After(number), number)
            await trio.sleep(3.5)
            with trio.CancelScope() as scope:
                scope.cancel()
                while len(asks):
                    await asks.next()
            assert [reply.key for reply in asks.arrived()] == [0, 1, 2, 3]
            assert asks.unanswered == (4,)
            assert list(asks.arrived()) == []


async def test_every_wait_is_a_checkpoint() -> None:
    async with ActorSystem() as system:
        ref = system.spawn(Replier)
        with AskGroup[int, str]() as asks:
            asks.ask(ref, After(0), 1)
            await wait_all_tasks_blocked()
            with trio.CancelScope() as scope:
                scope.cancel()
                await asks.next()
            assert scope.cancelled_caught
            with trio.testing.assert_checkpoints():
                await asks.next()


async def test_to_wait_for_more_replies_than_there_are_asks_is_refused() -> None:
    with AskGroup[int, str]() as asks, pytest.raises(IndexError):
        await asks.next()


async def test_a_crash_that_the_message_survives_is_not_noticed(autojump_clock: MockClock) -> None:
    class Crashing(Replier):
        crashes = 1

        async def receive(self, message: object) -> str | Failure:
            if type(self).crashes:
                type(self).crashes -= 1
                raise ZeroDivisionError
            return await super().receive(message)

    async with ActorSystem() as system:
        ref = system.spawn(Crashing, backoff=Backoff(initial=1))
        with AskGroup[int, str]() as asks:
            asks.ask(ref, After(1), 1)
            assert (await asks.next()).value == "answer"
            Crashing.crashes = 2
            asks.ask(ref, After(1), 2)
            assert isinstance((await asks.next()).error, ActorCrashed)


async def test_leaving_while_the_actor_restarts_keeps_the_message_from_being_handled_again(
    autojump_clock: MockClock,
) -> None:
    handled = []

    class Crashing(Replier):
        async def receive(self, message: object) -> str | Failure:
            handled.append(message)
            raise ZeroDivisionError

    async with ActorSystem() as system:
        ref = system.spawn(Crashing, backoff=Backoff(initial=5))
        with AskGroup[int, str]() as asks:
            asks.ask(ref, After(1), 1)
            await trio.sleep(1)
        await trio.sleep(30)
        assert len(handled) == 1
        assert ref.snapshot().queued == 0
