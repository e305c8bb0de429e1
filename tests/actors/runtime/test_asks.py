"""`ask`, `send` and `tell`: each ends once, in every phase of a message's way."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from helpers.scripted_actors import (
    Add,
    Adder,
    First,
    Gate,
    ScriptedActor,
    Stubborn,
    assert_balanced,
    boom,
    collect,
    hang,
    outcome_of,
    wide,
)
from ultra.actors import Actor, ActorOptions, ActorState, AskGroup
from ultra.errors import (
    ActorCrashed,
    ActorDown,
    ActorStopped,
    AskTimeout,
    BadCall,
    InboxFull,
)
from ultra.faults import FaultPlan
from ultra.supervisor import ActorSystem, RestartIntensity

if TYPE_CHECKING:
    from ultra.actors import ActorRef


async def test_an_ask_returns_what_the_handler_returns() -> None:
    async with ActorSystem() as system:
        adder = system.spawn(Adder)
        total: int = await adder.ask(Add(2, 3))  # typed by the message
        assert total == 5


async def test_a_failure_is_raised_in_the_asker_and_crashes_nobody() -> None:
    async with ActorSystem() as system:
        adder = system.spawn(Adder)
        with pytest.raises(KeyError, match="lost"):
            await adder.ask(KeyError("lost"))
        assert await adder.ask(Add(1, 1)) == 2
        snapshot = adder.snapshot()
        assert (snapshot.failed, snapshot.handled, snapshot.restarts) == (1, 1, 0)


async def test_messages_sent_before_the_actor_has_started_wait_for_it() -> None:
    class SlowToStart(ScriptedActor):
        async def on_start(self) -> None:
            await gate.wait()

    gate = trio.Event()
    async with ActorSystem() as system, trio.open_nursery() as nursery:
        ref = system.spawn(SlowToStart)
        ref.tell("first")
        reply = collect(nursery, ref, "second")
        await wait_all_tasks_blocked()
        assert (ref.snapshot().queued, reply) == (2, [])
        gate.set()
        await wait_all_tasks_blocked()
        assert reply == ["second"]


async def test_one_sender_s_messages_are_handled_in_the_order_sent_by_whatever_means() -> None:
    log: list[Any] = []
    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor, log)
        ref.tell(0)
        await ref.send(1)
        ref.tell(2)
        await ref.ask(3)
    assert log == [0, 1, 2, 3]


async def test_system_messages_are_handled_before_user_messages_that_came_earlier() -> None:
    log: list[Any] = []
    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor, log)
        ref.tell("user")
        ref.tell(First("system"))
        await ref.ask("last")
    assert log == ["system", "user", "last"]


async def test_system_messages_reach_an_actor_whose_inbox_is_full() -> None:
    gate = Gate()
    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor, options=wide(2, capacity=2))
        ref.tell(gate)
        await wait_all_tasks_blocked()
        ref.tell(gate)
        with pytest.raises(InboxFull):
            ref.tell("no room")
        ref.tell(First(gate))
        gate.open()
        assert await ref.ask(First("after")) == "after"


# --- timeouts and cancellation -------------------------------------------------------------------


async def test_an_ask_times_out_and_the_late_reply_reaches_nobody(autojump_clock: MockClock) -> None:
    gate = Gate()
    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor)
        with pytest.raises(AskTimeout, match="'/scriptedactor-1' did not answer within 2 s"):
            await ref.ask(gate, timeout=2)
        assert trio.current_time() == 2
        gate.open()
        assert await ref.ask("next") == "next"
        assert (gate.passed, ref.snapshot().handled) == (1, 2)


async def test_a_timeout_of_zero_sends_nothing() -> None:
    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor)
        with pytest.raises(AskTimeout):
            await ref.ask("never", timeout=0)
        assert ref.snapshot().sent == 0


@pytest.mark.parametrize("timeout", [-1, math.nan])
async def test_a_timeout_that_is_no_number_of_seconds_is_refused(timeout: float) -> None:
    async with ActorSystem() as system:
        with pytest.raises(BadCall, match=r"timeout is .*; it must be a number of seconds"):
            await system.spawn(ScriptedActor).ask("x", timeout=timeout)


async def test_a_timeout_longer_than_the_answer_takes_changes_nothing(autojump_clock: MockClock) -> None:
    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor)
        assert await ref.ask("x", timeout=math.inf) == "x"
        with pytest.raises(ActorCrashed):
            await ref.ask(boom, timeout=60)


@pytest.mark.parametrize("may_cancel", [False, True])
async def test_asks_time_out_alike_in_flight_and_queued_and_waiting_for_room(
    autojump_clock: MockClock,
    may_cancel: bool,  # noqa: FBT001
) -> None:
    gate = Gate()
    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor, options=wide(1, capacity=2, cancel_abandoned=may_cancel))
        outcomes: list[object] = []

        async def ask(message: object, timeout: float) -> None:
            outcomes.append(await outcome_of(ref.ask(message, timeout=timeout)))

        async with trio.open_nursery() as nursery:
            for message, timeout in ((gate, 3), ("queued", 2), ("without room", 1)):
                nursery.start_soon(ask, message, timeout)
                await wait_all_tasks_blocked()
            assert ref.snapshot().queued == 2
        assert [type(outcome) for outcome in outcomes] == [AskTimeout] * 3
        gate.open()
        assert await ref.ask("next") == "next"
        snapshot = ref.snapshot()
        assert_balanced(snapshot)
        if may_cancel:
            assert (snapshot.handled, snapshot.dead_lettered, snapshot.rejected) == (1, 2, 1)
            assert [letter.reason for letter in system.dead_letters] == ["abandoned", "abandoned"]
        else:
            assert (snapshot.handled, snapshot.dead_lettered, snapshot.rejected) == (3, 0, 1)


async def test_an_ask_in_a_cancelled_scope_sends_nothing() -> None:
    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor)
        with trio.CancelScope() as scope:
            scope.cancel()
            await ref.ask("never")
        with trio.CancelScope() as scope:
            scope.cancel()
            await ref.send("never")
        assert scope.cancelled_caught
        assert ref.snapshot().sent == 0


async def test_a_send_that_was_taken_in_is_not_reported_as_cancelled() -> None:
    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor)
        returned = False
        with trio.CancelScope() as scope:

            async def cancel_the_sender(_: Actor) -> None:
                scope.cancel()  # after the message was taken in, and before the sender goes on

            await ref.send(cancel_the_sender)
            returned = True
        assert returned


async def test_a_reply_that_came_before_the_cancellation_is_delivered() -> None:
    gate = Gate()
    outcomes: list[object] = []
    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor)
        with trio.CancelScope() as scope:

            async def ask() -> None:
                outcomes.append(await ref.ask(gate))

            async def cancel_the_asker(_: Actor) -> None:
                scope.cancel()  # the worker took this up in the same step in which it gave the reply

            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask)
                await wait_all_tasks_blocked()
                ref.tell(cancel_the_asker)
                gate.open()
        assert outcomes == ["passed"]
        assert await ref.ask("still here") == "still here"


async def test_a_reply_that_comes_after_the_cancellation_reaches_nobody() -> None:
    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor)
        with trio.CancelScope() as scope:

            async def cancel_the_asker(_: Actor) -> str:
                scope.cancel()
                return "too late"

            await ref.ask(cancel_the_asker)
        assert scope.cancelled_caught
        assert await ref.ask("next") == "next"
        assert ref.snapshot().handled == 2


async def test_an_abandoned_handler_goes_on_unless_the_options_say_otherwise() -> None:
    gate = Gate()
    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ref.ask, gate)
                await wait_all_tasks_blocked()
                scope.cancel()
        gate.open()
        await ref.ask("next")
        assert (gate.passed, gate.cancelled) == (1, 0)


async def test_an_abandoned_handler_is_cancelled_if_the_options_say_so() -> None:
    gate = Gate()
    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor, options=ActorOptions(cancel_abandoned=True))
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ref.ask, gate)
                await wait_all_tasks_blocked()
                scope.cancel()
        await ref.ask("next")
        assert (gate.passed, gate.cancelled) == (0, 1)
        assert [letter.message_type for letter in system.dead_letters] == ["Gate"]
        assert ref.snapshot().restarts == 0
        assert_balanced(ref.snapshot())


async def test_an_abandoned_handler_that_finishes_all_the_same_has_handled_its_message() -> None:
    stubborn = Stubborn()
    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor, options=ActorOptions(cancel_abandoned=True))
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ref.ask, stubborn)
                await stubborn.entered.wait()
                scope.cancel()
                stubborn.release()
        await ref.ask("next")
        assert (ref.snapshot().handled, system.dead_letters.total) == (2, 0)


async def test_an_actor_may_decide_itself_what_becomes_of_an_abandoned_handler() -> None:
    class Keeper(ScriptedActor):
        options = ActorOptions(cancel_abandoned=True)
        abandoned: list[object]

        def on_abandon(self, handler: trio.lowlevel.Task) -> None:
            abandoned.append(handler.name)
            raise RuntimeError("an error in here must not break trio's cancellation off")

    abandoned: list[str] = []
    gate = Gate()
    async with ActorSystem() as system:
        ref = system.spawn(Keeper, name="keeper")
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ref.ask, gate)
                await wait_all_tasks_blocked()
                scope.cancel()
        assert abandoned == ["/keeper"]
        gate.open()
        await ref.ask("next")
        assert (gate.passed, gate.cancelled) == (1, 0)


# --- room in the inbox ---------------------------------------------------------------------------


async def test_senders_wait_for_room_first_come_first_served() -> None:
    log: list[Any] = []
    gate = Gate()
    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor, log, options=ActorOptions(capacity=1))
        ref.tell(gate)
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(ref.send if number % 2 else ref.ask, number)
                await wait_all_tasks_blocked()
            assert (ref.snapshot().queued, ref.snapshot().in_flight) == (5, 1)
            gate.open()
    assert log == [gate, 0, 1, 2, 3, 4]


async def test_a_sender_cancelled_while_it_waits_for_room_has_sent_nothing() -> None:
    log: list[Any] = []
    gate = Gate()
    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor, log, options=ActorOptions(capacity=1))
        ref.tell(gate)
        for wait in (ref.send, ref.ask):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(wait, "never")
                    await wait_all_tasks_blocked()
                    scope.cancel()
        assert (ref.snapshot().queued, ref.snapshot().rejected) == (0, 2)
        gate.open()
        await ref.ask("last")
    assert log == [gate, "last"]


async def test_tell_finds_no_room_and_gets_its_message_back() -> None:
    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor, options=ActorOptions(capacity=2))
        ref.tell("a")
        ref.tell("b")
        with pytest.raises(InboxFull, match=r"'/scriptedactor-1' has a full inbox \(2 messages\)") as caught:
            ref.tell("c")
        assert (caught.value.rejected, caught.value.capacity) == ("c", 2)
        assert ref.snapshot().rejected == 1


async def test_with_reject_nobody_waits_for_room() -> None:
    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor, options=ActorOptions(capacity=1, overflow="reject"))
        ref.tell(hang)
        for attempt in (ref.send, ref.ask):
            with pytest.raises(InboxFull):
                await attempt("no room")
        with pytest.raises(InboxFull):
            ref.tell("no room")
        assert_balanced(ref.snapshot())
        await ref.stop(grace=0)


async def test_with_drop_oldest_the_asker_of_the_dropped_message_hears_of_it() -> None:
    gate = Gate()
    async with ActorSystem() as system, trio.open_nursery() as nursery:
        ref = system.spawn(ScriptedActor, options=ActorOptions(capacity=2, overflow="drop_oldest"))
        ref.tell(gate)
        await wait_all_tasks_blocked()
        dropped = collect(nursery, ref, "old")
        await wait_all_tasks_blocked()
        ref.tell("new")
        await wait_all_tasks_blocked()
        assert [type(outcome) for outcome in dropped] == [InboxFull]
        [letter] = system.dead_letters
        assert (letter.message_type, letter.reason) == ("str", "overflow")
        gate.open()
        await wait_all_tasks_blocked()
        assert await ref.ask("last") == "last"
        snapshot = ref.snapshot()
        assert (snapshot.handled, snapshot.dead_lettered) == (3, 1)
        assert_balanced(snapshot)


async def test_the_asker_of_a_message_that_its_own_duplicate_pushed_out_hears_of_it() -> None:
    """The message fails before its asker waits."""
    gate = Gate()
    async with ActorSystem(faults=FaultPlan().duplicate("/**", message=str)) as system:
        ref = system.spawn(ScriptedActor, options=ActorOptions(capacity=2, overflow="drop_oldest"))
        ref.tell(gate)
        await wait_all_tasks_blocked()
        with pytest.raises(InboxFull):
            await ref.ask("twice")
        with AskGroup[str, object]() as asks:
            asks.ask(ref, Add(1, 2), "once")
            gate.open()
            assert (await asks.next()).value == Add(1, 2)
    assert_balanced(ref.snapshot())


async def test_actors_with_full_inboxes_that_ask_each_other_get_their_replies() -> None:
    """Replies pass by the inboxes."""
    async with ActorSystem() as system:
        front = system.spawn(ScriptedActor, options=ActorOptions(capacity=1))
        back = system.spawn(ScriptedActor, options=ActorOptions(capacity=1))

        async def ask_back(_: Actor) -> object:
            return await back.ask("deep")

        async with trio.open_nursery() as nursery:
            outcomes = [collect(nursery, front, ask_back) for _ in range(10)]
        assert outcomes == [["deep"]] * 10


# --- actors that are gone ------------------------------------------------------------------------


async def attempts(ref: ActorRef) -> list[object]:
    """What `tell`, `send` and `ask` have to say of `ref`."""

    async def tell() -> None:
        ref.tell("x")

    return [await outcome_of(attempt) for attempt in (tell(), ref.send("x"), ref.ask("x"))]


async def test_a_stopped_actor_takes_nothing() -> None:
    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor)
        await ref.stop()
        assert [type(outcome) for outcome in await attempts(ref)] == [ActorStopped] * 3
        assert (ref.snapshot().sent, ref.snapshot().rejected) == (3, 3)


async def test_an_actor_whose_system_has_ended_takes_nothing() -> None:
    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor)
    assert [type(outcome) for outcome in await attempts(ref)] == [ActorStopped] * 3
    assert ref.snapshot().state is ActorState.STOPPED


async def test_an_actor_that_is_down_fails_at_once_with_the_cause() -> None:
    async with ActorSystem(on_excess="isolate", intensity=RestartIntensity(0)) as system:
        ref = system.spawn(ScriptedActor, options=ActorOptions(max_deliveries=1))
        with pytest.raises(ActorCrashed):
            await ref.ask(boom)
        await ref.watch()
        for outcome in await attempts(ref):
            assert isinstance(outcome, ActorDown)
            assert str(outcome) == "actor '/scriptedactor-1' is down: ValueError: boom"
            assert isinstance(outcome.__cause__, ValueError)


async def test_asks_that_wait_when_the_actor_goes_down_fail_with_the_cause() -> None:
    async def crash_later(_: Actor) -> None:
        await gate.event.wait()
        raise ValueError("boom")

    gate = Gate()
    async with ActorSystem(on_excess="isolate", intensity=RestartIntensity(0)) as system:
        ref = system.spawn(ScriptedActor, options=wide(1, capacity=2, max_deliveries=1))
        async with trio.open_nursery() as nursery:
            in_flight = collect(nursery, ref, crash_later)
            await wait_all_tasks_blocked()
            rest = [collect(nursery, ref, number) for number in range(3)]
            await wait_all_tasks_blocked()
            gate.open()
        assert [type(outcome) for outcome in in_flight] == [ActorCrashed]
        assert [type(outcome) for [outcome] in rest] == [ActorDown] * 3
        assert_balanced(ref.snapshot())


async def test_asks_of_a_stopping_actor_are_given_back() -> None:
    gate = Gate()
    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor, options=ActorOptions(capacity=2))
        async with trio.open_nursery() as nursery:
            in_flight = collect(nursery, ref, gate)
            await wait_all_tasks_blocked()
            queued = collect(nursery, ref, "queued")
            await wait_all_tasks_blocked()
            waiting = collect(nursery, ref, "waiting")
            await wait_all_tasks_blocked()
            ref.request_stop()
            late = collect(nursery, ref, "late")
            await wait_all_tasks_blocked()
            assert [type(outcome) for [outcome] in (queued, waiting, late)] == [ActorStopped] * 3
            assert in_flight == []
            gate.open()
        assert in_flight == ["passed"]
        assert_balanced(ref.snapshot())


# --- many ----------------------------------------------------------------------------------------


async def test_an_actor_that_never_blocks_lets_others_run() -> None:
    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor, options=ActorOptions(capacity=1000))
        for number in range(1000):
            ref.tell(number)
        turns = 0
        while ref.snapshot().handled < 1000:
            await trio.lowlevel.checkpoint()
            turns += 1
        assert turns > 20


async def test_a_thousand_actors_answer_and_leave_no_task_behind() -> None:
    before = trio.lowlevel.current_statistics().tasks_living
    async with ActorSystem() as system:
        refs = [system.spawn(ScriptedActor) for _ in range(1000)]
        async with trio.open_nursery() as nursery:
            replies = [collect(nursery, ref, number) for number, ref in enumerate(refs)]
        assert replies == [[number] for number in range(1000)]
    assert trio.lowlevel.current_statistics().tasks_living == before


async def test_an_idle_actor_needs_no_task_until_its_first_message() -> None:
    async with ActorSystem() as system:
        await wait_all_tasks_blocked()
        before = trio.lowlevel.current_statistics().tasks_living
        refs = [system.spawn(ScriptedActor) for _ in range(10)]
        await wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().tasks_living == before
        assert {ref.snapshot().state for ref in refs} == {ActorState.RUNNING}
        assert await refs[3].ask("hello") == "hello"
        assert trio.lowlevel.current_statistics().tasks_living == before + 1
