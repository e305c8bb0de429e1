"""With `cancel_abandoned`: what becomes of a handler whose asker waits no longer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from helpers.scripted_actors import (
    AT_ONCE,
    Gate,
    ScriptedActor,
    assert_balanced,
    collect,
    leaves,
    recording,
    wide,
)
from ultra.actors import Actor, ActorOptions, ActorState
from ultra.errors import ActorUnresponsive, AskTimeout
from ultra.supervisor import ActorSystem

if TYPE_CHECKING:
    from helpers.scripted_actors import Action
    from ultra.actors import ActorRef

CANCELS = ActorOptions(cancel_abandoned=True, max_deliveries=1)


async def abandon(ref: ActorRef, action: Action) -> None:
    """Ask for `action`, and stop to wait once the actor does it."""
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ref.ask, action)
            await wait_all_tasks_blocked()
            scope.cancel()
    assert scope.cancelled_caught


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_a_handler_is_cancelled_at_its_askers_timeout_and_the_next_one_goes_on(
    concurrency: int, autojump_clock: MockClock
) -> None:
    async def five_seconds(_: Actor) -> str:
        await trio.sleep(5)
        ends.append(trio.current_time())
        return "done"

    ends: list[float] = []
    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor, options=wide(concurrency, cancel_abandoned=True))
        for _ in range(3):
            start = trio.current_time()
            with pytest.raises(AskTimeout):
                await ref.ask(five_seconds, timeout=3)
            assert await ref.ask(five_seconds, timeout=6) == "done"
            assert trio.current_time() == start + 8
        assert (ref.snapshot().handled, ref.snapshot().restarts) == (3, 0)
        assert_balanced(ref.snapshot())
    assert ends == [8, 16, 24]
    assert [letter.reason for letter in system.dead_letters] == ["abandoned"] * 3


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_a_handler_may_bound_parts_of_its_work_with_scopes_of_its_own(
    concurrency: int, autojump_clock: MockClock
) -> None:
    async def try_twice(_: Actor) -> str:
        for limit in (3, 10):
            with trio.move_on_after(limit):
                await trio.sleep(5)
                return f"done within {limit} s"
        return "never"

    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor, options=wide(concurrency, cancel_abandoned=True))
        for _ in range(3):
            assert await ref.ask(try_twice) == "done within 10 s"


async def test_an_asker_that_goes_away_once_it_was_answered_does_nothing_to_the_next_handler() -> None:
    async def cancel_the_asker(_: Actor) -> str:
        scope.cancel()  # the worker took this up in the same step in which it gave the reply
        await trio.lowlevel.checkpoint()
        return "went on"

    gate = Gate()
    async with ActorSystem() as system, trio.open_nursery() as nursery:
        ref = system.spawn(ScriptedActor, options=CANCELS)
        with trio.CancelScope() as scope:

            async def answer_and_cancel() -> None:
                await wait_all_tasks_blocked()
                second.extend(collect(nursery, ref, cancel_the_asker))
                await wait_all_tasks_blocked()
                gate.open()

            second: list[object] = []
            nursery.start_soon(answer_and_cancel)
            assert await ref.ask(gate) == "passed"
        await wait_all_tasks_blocked()
        assert (ref.snapshot().handled, ref.snapshot().dead_lettered) == (2, 0)


async def test_a_cancellation_that_comes_too_late_for_its_handler_touches_no_other() -> None:
    async def without_a_checkpoint(_: Actor) -> str:
        scope.cancel()
        with trio.CancelScope(shield=True):
            await wait_all_tasks_blocked()  # the asker has gone by now, and this is cancelled
        return "nobody hears this"

    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor, options=CANCELS)
        with trio.CancelScope() as scope:
            await ref.ask(without_a_checkpoint)
        assert scope.cancelled_caught
        gate = Gate()
        gate.open()
        assert await ref.ask(gate) == "passed"
        assert (ref.snapshot().handled, ref.snapshot().dead_lettered) == (2, 0)


async def test_the_actors_own_end_ends_a_handler_that_was_abandoned_as_well() -> None:
    async def slow_to_leave(_: Actor) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await released.wait()

    released = trio.Event()
    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor, options=CANCELS)
        await abandon(ref, slow_to_leave)
        ref.tell("never")
        ref.request_stop(grace=0)
        await wait_all_tasks_blocked()
        assert ref.snapshot().state is ActorState.STOPPING
        released.set()
        ended = await ref.watch()
        assert (ended.state, ended.error) == (ActorState.STOPPED, None)
        assert_balanced(ref.snapshot())


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_an_error_of_a_handler_that_was_abandoned_is_a_crash_without_its_cancellation(
    concurrency: int,
) -> None:
    async def fail_when_cancelled() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ZeroDivisionError

    async def fail_beside_a_sleeper(_: Actor) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_when_cancelled)
            nursery.start_soon(trio.sleep_forever)

    options = wide(concurrency, cancel_abandoned=True, max_deliveries=1)
    async with ActorSystem() as system:
        with recording(system) as recorder:
            ref = system.spawn(ScriptedActor, name="p", options=options, backoff=AT_ONCE)
            await abandon(ref, fail_beside_a_sleeper)
            assert await ref.ask("next") == "next"
            [crash] = [event.error for event in recorder.events if event.kind == "crashed"]
    assert crash is not None
    assert [type(leaf) for leaf in leaves(crash)] == [ZeroDivisionError]


async def test_a_stop_reaches_a_handler_in_the_middle_of_a_scope_of_its_own(
    autojump_clock: MockClock,
) -> None:
    async def try_again(_: Actor) -> None:
        with trio.move_on_after(3):
            await trio.sleep_forever()
        with trio.CancelScope():
            await trio.sleep_forever()

    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor, options=CANCELS)
        ref.tell(try_again)
        await trio.sleep(10)
        await ref.stop(grace=2)
        assert trio.current_time() == 12


async def test_a_handler_whose_actor_was_given_up_is_cancelled_where_it_next_can_be(
    autojump_clock: MockClock,
) -> None:
    how: list[type[BaseException]] = []

    async def stubborn(_: Actor) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(100)
        try:
            await trio.lowlevel.checkpoint()
        except BaseException as error:
            how.append(type(error))
            raise

    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor, options=CANCELS)
        ref.tell(stubborn)
        await wait_all_tasks_blocked()
        ended = await ref.stop(grace=1)
        assert isinstance(ended.error, ActorUnresponsive)
        assert how == []
    assert how == [trio.Cancelled]
