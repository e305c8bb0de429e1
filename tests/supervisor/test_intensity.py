"""At most so many restarts in any period: how the window counts, and what follows when it is full."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from trio.testing import MockClock

from helpers.scripted_actors import AT_ONCE, ScriptedActor, boom, recording
from ultra.actors import Actor, ActorOptions, ActorState
from ultra.errors import BadCall
from ultra.supervisor import ActorSystem, Backoff, RestartIntensity
from ultra.supervisor.restart_policy import CountedRestart, RestartWindow

if TYPE_CHECKING:
    from ultra.actors import ActorRef

ONCE = ActorOptions(max_deliveries=1)
CRASH = ValueError("boom")


@pytest.mark.parametrize("max_restarts", [-1, 1.5, True, None, "3"])
def test_a_number_of_restarts_that_is_none_is_refused(max_restarts: Any) -> None:
    with pytest.raises(BadCall, match=r"max_restarts is .*; it must be a whole number, 0 or more"):
        RestartIntensity(max_restarts)


@pytest.mark.parametrize("within", [0, -1, float("inf"), float("nan")])
def test_a_period_that_is_none_is_refused(within: float) -> None:
    with pytest.raises(BadCall, match=r"within is .*; it must be a number of seconds above 0"):
        RestartIntensity(3, within)


def restart_at(window: RestartWindow, time: float) -> bool:
    """Whether a restart at `time` is allowed; it takes place at once."""
    restart = window.admit(time, CRASH)
    if restart is not None:
        restart.time = time
    return restart is not None


def test_a_restart_exactly_a_period_ago_still_counts() -> None:
    window = RestartWindow(RestartIntensity(1, within=5.0))
    assert restart_at(window, 10.0)
    assert not restart_at(window, 15.0)
    assert restart_at(window, 15.1)


def test_what_was_refused_does_not_count() -> None:
    window = RestartWindow(RestartIntensity(1, within=5.0))
    assert restart_at(window, 0.0)
    assert not restart_at(window, 4.0)
    assert restart_at(window, 6.0)


def test_a_restart_that_is_still_to_come_counts_however_long_that_takes() -> None:
    window = RestartWindow(RestartIntensity(1, within=5.0))
    pending = window.admit(0.0, CRASH)
    assert pending is not None
    assert not restart_at(window, 100.0)
    pending.time = 100.0
    assert not restart_at(window, 105.0)
    assert restart_at(window, 105.1)


def test_no_restart_is_allowed_where_none_is_wanted() -> None:
    window = RestartWindow(RestartIntensity(0))
    assert not restart_at(window, 0.0)


def test_the_crashes_are_those_that_counted_oldest_first() -> None:
    window = RestartWindow(RestartIntensity(2, within=5.0))
    crashes = [ValueError(number) for number in range(4)]
    for time, crash in zip((0.0, 3.0, 6.0, 6.0), crashes, strict=True):
        restart = window.admit(time, crash)
        if restart is not None:
            restart.time = time
    assert window.crashes == crashes[1:3]


class WindowMachine(RuleBasedStateMachine):
    """However crashes, and delays before the restarts, come: no period has too many restarts."""

    @initialize(most=st.integers(0, 4), within=st.sampled_from([0.5, 1.0, 3.0]))
    def begin(self, most: int, within: float) -> None:
        self.window = RestartWindow(RestartIntensity(most, within=within))
        self.now = 0.0
        self.pending: list[CountedRestart] = []
        self.times: list[float] = []  # of all restarts that took place

    @rule(seconds=st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def crash(self) -> None:
        intensity = self.window.intensity
        recent = [time for time in self.times if time >= self.now - intensity.within]
        room = len(recent) + len(self.pending) < intensity.max_restarts
        restart = self.window.admit(self.now, CRASH)
        assert (restart is not None) == room
        if restart is not None:
            self.pending.append(restart)

    @rule(data=st.data())
    @precondition(lambda self: self.pending)
    def start_again(self, data: st.DataObject) -> None:
        restart = self.pending.pop(data.draw(st.integers(0, len(self.pending) - 1)))
        restart.time = self.now
        self.times.append(self.now)

    @rule()
    def forget(self) -> None:
        self.window.clear()
        self.pending.clear()
        self.times.clear()

    @invariant()
    def no_period_has_too_many(self) -> None:
        intensity = self.window.intensity
        for end in self.times:
            within = [time for time in self.times if end - intensity.within <= time <= end]
            assert len(within) <= intensity.max_restarts


TestWindowMachine = WindowMachine.TestCase
TestWindowMachine.settings = settings(max_examples=60, stateful_step_count=40)


# --- in a supervisor -----------------------------------------------------------------------------


async def crash_at(ref: ActorRef, *times: float) -> list[ActorState]:
    """Crash the actor at these times; its state right after each."""
    states = []
    for time in times:
        await trio.sleep_until(time)
        if ref.snapshot().state is not ActorState.DOWN:
            ref.tell(boom)
        await trio.sleep(0.001)
        states.append(ref.snapshot().state)
    return states


@pytest.mark.parametrize(
    ("times", "down"),
    [
        ((0, 1, 2, 3), True),
        ((0, 1, 2, 4.99), True),
        ((0, 1, 2, 5.5), False),
        ((0, 1, 2, 5.5, 5.6), True),
        ((0, 6, 12, 18, 24, 30), False),
    ],
)
async def test_the_crash_that_is_one_too_many_in_a_period_has_its_consequence(
    autojump_clock: MockClock,
    times: tuple[float, ...],
    down: bool,  # noqa: FBT001
) -> None:
    async with ActorSystem(on_excess="isolate", intensity=RestartIntensity(3, within=5.0)) as system:
        ref = system.spawn(ScriptedActor, backoff=AT_ONCE, options=ONCE)
        states = await crash_at(ref, *times)
        assert states[:-1] == [ActorState.RUNNING] * (len(times) - 1)
        assert states[-1] is (ActorState.DOWN if down else ActorState.RUNNING)


async def test_the_intensity_counts_all_children_of_a_supervisor_together(autojump_clock: MockClock) -> None:
    async with ActorSystem(on_excess="isolate", intensity=RestartIntensity(2, within=5.0)) as system:
        refs = [system.spawn(ScriptedActor, backoff=AT_ONCE, options=ONCE) for _ in range(3)]
        for ref in refs:
            await crash_at(ref, trio.current_time())
        assert [ref.snapshot().state for ref in refs] == [
            ActorState.RUNNING,
            ActorState.RUNNING,
            ActorState.DOWN,
        ]


async def test_supervisors_count_each_for_itself(autojump_clock: MockClock) -> None:
    async with ActorSystem() as system:
        groups = [
            system.supervisor(f"g{n}", on_excess="isolate", intensity=RestartIntensity(1)) for n in range(3)
        ]
        refs = [group.spawn(ScriptedActor, backoff=AT_ONCE, options=ONCE) for group in groups]
        for ref in refs:
            await crash_at(ref, trio.current_time())
        assert [ref.snapshot().state for ref in refs] == [ActorState.RUNNING] * 3


async def test_failed_starts_and_failed_restarts_count(autojump_clock: MockClock) -> None:
    class NeverStarts(ScriptedActor):
        async def on_start(self) -> None:
            raise OSError("never")

    async with ActorSystem(on_excess="isolate", intensity=RestartIntensity(3)) as system:
        with recording(system) as recorder:
            ref = system.spawn(NeverStarts, name="x", backoff=AT_ONCE)
            ended = await ref.watch()
            assert (ended.state, str(ended.error)) == (ActorState.DOWN, "never")
            assert recorder.kinds("/x") == [*["crashed", "restarting"] * 3, "crashed", "down"]


async def test_failing_factories_count(autojump_clock: MockClock) -> None:
    def factory() -> Actor:
        attempts.append(trio.current_time())
        raise OSError("never")

    attempts: list[float] = []
    async with ActorSystem(on_excess="isolate", intensity=RestartIntensity(2)) as system:
        ref = system.spawn(factory, backoff=Backoff(initial=1.0, factor=1.0, jitter=0.0))
        assert (await ref.watch()).state is ActorState.DOWN
    assert attempts == [0.0, 1.0, 2.0]


async def test_a_crash_of_what_was_told_to_end_does_not_count(autojump_clock: MockClock) -> None:
    class Clumsy(ScriptedActor):
        async def on_stop(self) -> None:
            raise OSError("at the end")

    async with ActorSystem(intensity=RestartIntensity(0)) as system:
        for _ in range(5):
            ref = system.spawn(Clumsy)
            await ref.ask("x")
            assert str((await ref.stop()).error) == "at the end"
