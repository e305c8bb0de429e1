"""The end of one actor: what becomes of its messages, within what time, from whatever state."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock, wait_all_tasks_blocked

from helpers.scripted_actors import (
    AT_ONCE,
    Closing,
    First,
    Gate,
    ScriptedActor,
    assert_balanced,
    boom,
    collect,
    hang,
    recording,
)
from ultra.actors import Actor, ActorOptions, ActorState
from ultra.errors import ActorCrashed, ActorStopped, BadCall
from ultra.supervisor import ActorSystem, Backoff, RestartIntensity

if TYPE_CHECKING:
    pass

pytestmark = pytest.mark.usefixtures("no_task_is_left")

ONCE = ActorOptions(max_deliveries=1)


# --- what is in hand, and what waits -----------------------------------------------------------


async def test_a_stop_lets_handlers_finish_and_gives_the_rest_back(autojump_clock: MockClock) -> None:
    async def finish_in_time(_: Actor) -> str:
        await trio.sleep(4)
        return "finished"

    async with ActorSystem() as system, trio.open_nursery() as nursery:
        ref = system.spawn(ScriptedActor, name="p")
        in_hand = collect(nursery, ref, finish_in_time)
        await wait_all_tasks_blocked()
        rest = [collect(nursery, ref, message) for message in ("queued", First("urgent"))]
        await wait_all_tasks_blocked()
        await ref.stop()
        assert trio.current_time() == 4
        await wait_all_tasks_blocked()
        assert in_hand == ["finished"]
        assert [type(outcome) for [outcome] in rest] == [ActorStopped] * 2
        assert [letter.reason for letter in system.dead_letters] == ["stopped"] * 2
        assert_balanced(ref.snapshot())


async def test_handlers_are_cancelled_when_the_grace_period_is_over(autojump_clock: MockClock) -> None:
    async with ActorSystem() as system, trio.open_nursery() as nursery:
        gate = Gate()
        ref = system.spawn(ScriptedActor, options=ActorOptions(grace=3.0))
        outcome = collect(nursery, ref, gate)
        await wait_all_tasks_blocked()
        ended = await ref.stop()
        assert (trio.current_time(), gate.cancelled, ended.error) == (3, 1, None)
        await wait_all_tasks_blocked()
        assert [str(error) for error in outcome] == ["actor '/scriptedactor-1' has stopped"]


async def test_a_stop_may_give_a_grace_of_its_own(autojump_clock: MockClock) -> None:
    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor)
        ref.tell(hang)
        await wait_all_tasks_blocked()
        await ref.stop(grace=0.5)
        assert trio.current_time() == 0.5


async def test_a_crash_while_stopping_is_reported_and_nobody_restarted(autojump_clock: MockClock) -> None:
    async def crash_late(_: Actor) -> None:
        await trio.sleep(1)
        raise ValueError("boom")

    async with ActorSystem(intensity=RestartIntensity(0)) as system, trio.open_nursery() as nursery:
        with recording(system) as recorder:
            ref = system.spawn(ScriptedActor)
            outcome = collect(nursery, ref, crash_late)
            await wait_all_tasks_blocked()
            ended = await ref.stop()
            assert str(ended.error) == "boom"
            await wait_all_tasks_blocked()
            assert [type(error) for error in outcome] == [ActorCrashed]
            assert recorder.kinds("/scriptedactor-1") == ["started", "crashed", "stopped"]


@pytest.mark.parametrize("grace", [-1, math.nan, math.inf])
async def test_a_grace_that_is_no_number_of_seconds_is_refused(grace: float) -> None:
    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor)
        below = system.supervisor("below")
        for stop in (ref.request_stop, below.request_stop, system.request_stop):
            with pytest.raises(BadCall, match=r"grace is .*; it must be a number of seconds"):
                stop(grace=grace)
        assert await ref.ask("still here") == "still here"


# --- more than one stop ------------------------------------------------------------------------


async def test_to_stop_again_does_nothing_more() -> None:
    async with ActorSystem() as system:
        log: list[Any] = []
        ref = system.spawn(Closing, "x", log)
        await ref.ask("x")
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ref.stop)
        await ref.stop()
        ref.request_stop()
        await system.stop()
        await system.stop()
        assert len(log) == 1


@pytest.mark.parametrize(("first", "second", "took"), [(4, 1, 1), (1, 4, 1), (None, 2, 2), (2, None, 2)])
async def test_a_second_stop_can_shorten_the_first_and_not_slow_it_down(
    autojump_clock: MockClock, first: float | None, second: float | None, took: float
) -> None:
    for what in ("actor", "system"):
        began = trio.current_time()
        async with ActorSystem() as system:
            ref = system.spawn(ScriptedActor)
            ref.tell(hang)
            await wait_all_tasks_blocked()
            target: Any = ref if what == "actor" else system
            target.request_stop(grace=first)
            target.request_stop(grace=second)
        assert trio.current_time() - began == took


# --- from every state --------------------------------------------------------------------------


@pytest.mark.parametrize("leave", [True, False])
async def test_a_stop_in_the_middle_of_a_backoff_ends_it(
    autojump_clock: MockClock,
    leave: bool,  # noqa: FBT001
) -> None:
    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor, options=ONCE, backoff=Backoff(initial=100.0, maximum=100.0))
        ref.tell(boom)
        await trio.sleep(1)
        assert ref.snapshot().state is ActorState.RESTARTING
        if not leave:
            assert (await ref.stop()).state is ActorState.STOPPED
            assert trio.current_time() == 1
    assert trio.current_time() == 1
    assert (await ref.watch()).state is ActorState.STOPPED


async def test_a_stop_before_the_start_starts_nothing() -> None:
    class Never(ScriptedActor):
        async def on_start(self) -> None:
            raise AssertionError("started")

        async def on_stop(self) -> None:
            raise AssertionError("stopped")

    async with ActorSystem() as system:
        ref = system.spawn(Never)
        ended = await ref.stop()
        assert (ended.state, ended.error) == (ActorState.STOPPED, None)


async def test_a_stop_during_the_start_lets_it_finish_within_the_grace_period(
    autojump_clock: MockClock,
) -> None:
    class Slow(Closing):
        async def on_start(self) -> None:
            await trio.sleep(3)

    log: list[Any] = []
    async with ActorSystem() as system:
        for grace, took in ((5.0, 3.0), (1.0, 1.0)):
            began = trio.current_time()
            ref = system.spawn(Slow, "slow", log, options=ActorOptions(grace=grace))
            await wait_all_tasks_blocked()
            ended = await ref.stop()
            assert (trio.current_time() - began, ended.error) == (took, None)
    assert log == [(3.0, "slow")]  # an actor that has not started has nothing to stop


async def test_a_stop_while_a_group_is_being_restarted_ends_all(autojump_clock: MockClock) -> None:
    async with ActorSystem() as system:
        log: list[Any] = []
        group = system.supervisor("group", strategy="one_for_all")
        fragile = group.spawn(Closing, "a", log, options=ONCE)
        for name in "bc":
            group.spawn(Closing, name, log, 1.0)
        await wait_all_tasks_blocked()
        fragile.tell(boom)
        await trio.sleep(0.5)
        with recording(system) as recorder:
            await group.stop()
            assert trio.current_time() == 2.0
            assert recorder.paths("started") == []
        assert [name for _, name in log] == ["a", "c", "b"]


async def test_a_nested_supervisor_told_to_stop_while_it_ends_comes_back_to_stay() -> None:
    """A regression: the request to stop was kept for its next incarnation, which then ended at once."""
    async with ActorSystem(intensity=RestartIntensity(10)) as system:
        outer = system.supervisor("outer", strategy="one_for_all", backoff=AT_ONCE)
        inner = outer.supervisor("inner", intensity=RestartIntensity(0), backoff=AT_ONCE)
        deep = inner.spawn(ScriptedActor, options=ONCE)
        near = outer.spawn(ScriptedActor, options=ONCE, backoff=AT_ONCE)
        for _ in range(3):
            await deep.ask("x")
            deep.tell(boom)
            near.tell(boom)
            assert await deep.ask("back") == "back"
            assert await near.ask("back") == "back"
        assert outer.snapshot().restarts <= 6
