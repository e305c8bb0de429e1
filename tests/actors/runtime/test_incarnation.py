"""One incarnation of an actor: how it starts, handles messages, crashes, and ends."""

from __future__ import annotations

import gc
import itertools
import signal
import weakref
from contextvars import ContextVar
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from helpers.noting_actor import Noting
from helpers.scripted_actors import (
    AT_ONCE,
    First,
    Gate,
    ScriptedActor,
    assert_balanced,
    boom,
    collect,
    hang,
    leaves,
    outcome_of,
    recording,
    wide,
)
from ultra.actors import Actor, ActorOptions, ActorState
from ultra.actors.runtime import incarnation
from ultra.errors import ActorCrashed
from ultra.supervisor import ActorSystem, RestartIntensity

OFTEN = RestartIntensity(1000, within=1.0)
ONCE = ActorOptions(max_deliveries=1)


# --- start and stop ------------------------------------------------------------------------------


async def test_an_actor_starts_before_its_first_message_and_stops_after_its_last() -> None:
    log: list[Any] = []
    async with ActorSystem() as system:
        ref = system.spawn(Noting, log)
        ref.tell("first")
        await ref.ask("last")
    assert log == ["made", "started", "first", "last", "stopped"]


async def test_an_actor_stops_after_a_crash_and_before_the_next_incarnation_is_made() -> None:
    log: list[Any] = []
    async with ActorSystem() as system:
        ref = system.spawn(Noting, log, backoff=AT_ONCE, options=ONCE)
        ref.tell(boom)
        await ref.ask("next")
    assert log == ["made", "started", boom, "stopped", "made", "started", "next", "stopped"]


async def test_an_actor_that_only_stops_stops_even_if_no_message_came() -> None:
    class Closer(Actor):
        async def on_stop(self) -> None:
            log.append("stopped")

    log: list[str] = []
    async with ActorSystem() as system:
        system.spawn(Closer)
        await wait_all_tasks_blocked()
    assert log == ["stopped"]


async def test_a_failed_start_counts_as_a_crash_is_repeated_and_loses_no_message() -> None:
    class Reluctant(ScriptedActor):
        async def on_start(self) -> None:
            attempts.append(trio.current_time())
            if len(attempts) < 3:
                raise OSError("not yet")

        async def on_stop(self) -> None:
            stops.append(len(attempts))

    attempts: list[float] = []
    stops: list[int] = []
    async with ActorSystem() as system:
        with recording(system) as recorder:
            ref = system.spawn(Reluctant, backoff=AT_ONCE)
            assert await ref.ask("hello") == "hello"
            await wait_all_tasks_blocked()
            assert recorder.kinds("/reluctant-1") == [*["crashed", "restarting"] * 2, "started"]
        snapshot = ref.snapshot()
        assert (snapshot.restarts, snapshot.last_error) == (2, "OSError: not yet")
    assert stops == [3]  # an actor that did not start has nothing to stop


async def test_a_factory_that_fails_counts_as_a_failed_start() -> None:
    def factory() -> ScriptedActor:
        attempts.append(1)
        if len(attempts) == 1:
            raise OSError("no actor today")
        return ScriptedActor()

    attempts: list[int] = []
    async with ActorSystem() as system:
        ref = system.spawn(factory, backoff=AT_ONCE)
        assert await ref.ask("hello") == "hello"
        assert (ref.snapshot().restarts, ref.snapshot().last_error) == (1, "OSError: no actor today")


@pytest.mark.parametrize(
    ("factory", "what"),
    [
        (lambda: object(), "which is no Actor"),  # noqa: PLW0108 - a class is refused by `spawn`
        (lambda actor=ScriptedActor(): actor, "a second time"),  # noqa: B008
    ],
    ids=["no actor", "the same actor"],
)
async def test_a_factory_must_make_a_new_actor_each_time(factory: Any, what: str) -> None:
    async with ActorSystem(on_excess="isolate", intensity=RestartIntensity(1)) as system:
        ref = system.spawn(factory, name="x", backoff=AT_ONCE, options=ONCE)
        ref.tell(boom)
        ended = await ref.watch()
        assert isinstance(ended.error, TypeError)
        assert what in str(ended.error)


async def test_a_start_that_takes_too_long_is_cancelled_and_counts_as_a_crash(
    autojump_clock: MockClock,
) -> None:
    class Slow(ScriptedActor):
        options = ActorOptions(start_timeout=3.0)

        async def on_start(self) -> None:
            started_at.append(trio.current_time())
            await trio.sleep(3.5 if len(started_at) == 1 else 2.5)

    started_at: list[float] = []
    async with ActorSystem() as system:
        ref = system.spawn(Slow, backoff=AT_ONCE)
        await ref.ask("x")
        assert started_at == [0.0, 3.0]
        assert ref.snapshot().last_error == "TimeoutError: on_start took longer than 3 s"
        await trio.sleep(100)  # the limit of the start is no limit of what follows
        assert await ref.ask("y") == "y"


async def test_a_start_that_ignores_its_time_limit_and_returns_late_counts_as_a_crash_too(
    autojump_clock: MockClock,
) -> None:
    class Deaf(Noting):
        options = ActorOptions(start_timeout=1.0)

        async def on_start(self) -> None:
            await super().on_start()
            with trio.CancelScope(shield=True):
                await trio.sleep(1.5 if len(log) == 2 else 0.5)

    log: list[Any] = []
    async with ActorSystem() as system:
        ref = system.spawn(Deaf, log, backoff=AT_ONCE)
        await ref.ask("x")
        assert trio.current_time() == 2.0
    assert log == ["made", "started", "stopped", "made", "started", "x", "stopped"]


async def test_an_error_in_on_stop_is_reported_and_stops_nothing() -> None:
    class Clumsy(ScriptedActor):
        async def on_stop(self) -> None:
            raise OSError("the door is stuck")

    async with ActorSystem() as system:
        with recording(system) as recorder:
            ref = system.spawn(Clumsy, name="clumsy")
            await ref.ask("x")
            ended = await ref.stop()
            assert (ended.state, str(ended.error)) == (ActorState.STOPPED, "the door is stuck")
            assert recorder.kinds("/clumsy") == ["started", "crashed", "stopped"]


async def test_an_error_in_on_stop_after_a_crash_adds_to_it() -> None:
    class Clumsy(ScriptedActor):
        async def on_stop(self) -> None:
            raise OSError("the door is stuck")

    async with ActorSystem(on_excess="isolate", intensity=RestartIntensity(0)) as system:
        ref = system.spawn(Clumsy, options=ONCE)
        crash = await outcome_of(ref.ask(boom))
        assert isinstance(crash, ActorCrashed)
        assert isinstance(crash.__cause__, ValueError)
        ended = await ref.watch()
        assert isinstance(ended.error, ExceptionGroup)
        assert [type(error) for error in ended.error.exceptions] == [ValueError, OSError]


async def test_on_stop_is_cut_off_when_it_takes_too_long(autojump_clock: MockClock) -> None:
    class Lingering(ScriptedActor):
        options = ActorOptions(stop_timeout=2.0)

        async def on_stop(self) -> None:
            await trio.sleep_forever()

    async with ActorSystem() as system:
        ref = system.spawn(Lingering)
        await ref.ask("x")
        ended = await ref.stop()
        assert trio.current_time() == 2.0
        assert str(ended.error) == "on_stop took longer than 2 s"


# --- crashes -------------------------------------------------------------------------------------


async def test_a_message_that_crashed_the_actor_is_delivered_once_more_before_all_others() -> None:
    async def crash_once(_: Actor) -> str:
        if len(log) == 1:
            raise ValueError("boom")
        return "second time lucky"

    log: list[Any] = []
    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor, log, backoff=AT_ONCE)
        ref.tell(crash_once)
        assert await ref.ask("after") == "after"
        snapshot = ref.snapshot()
        assert (snapshot.redelivered, snapshot.handled, snapshot.restarts) == (1, 2, 1)
        assert await ref.ask(crash_once) == "second time lucky"
    assert log == [crash_once, crash_once, "after", crash_once]


@pytest.mark.parametrize("times", [1, 2, 5])
async def test_a_message_that_always_crashes_is_delivered_so_often_and_then_a_dead_letter(times: int) -> None:
    log: list[Any] = []
    async with ActorSystem(intensity=OFTEN) as system:
        options = ActorOptions(max_deliveries=times)
        ref = system.spawn(ScriptedActor, log, name="p", options=options, backoff=AT_ONCE)
        error = await outcome_of(ref.ask(boom))
        assert isinstance(error, ActorCrashed)
        assert (error.deliveries, error.path) == (times, "/p")
        assert str(error).endswith(f"({times} deliveries): ValueError: boom")
        assert isinstance(error.__cause__, ValueError)
        [letter] = system.dead_letters
        assert (letter.path, letter.message_type, letter.reason) == ("/p", "function", "crashed")
        await ref.ask("next")
        assert_balanced(ref.snapshot())
    assert log == [*[boom] * times, "next"]


async def test_what_the_other_workers_had_in_hand_is_delivered_again_in_order() -> None:
    async def crash_once(_: Actor) -> None:
        if log.count(crash_once) == 1:
            raise ValueError("boom")

    log: list[Any] = []
    gates = [Gate(), Gate(), Gate()]
    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor, log, options=wide(4), backoff=AT_ONCE)
        async with trio.open_nursery() as nursery:
            outcomes = []
            for gate in gates:
                outcomes.append(collect(nursery, ref, gate))
                await wait_all_tasks_blocked()
            ref.tell(First(crash_once))
            ref.tell("last")
            await wait_all_tasks_blocked()
            assert [gate.cancelled for gate in gates] == [1, 1, 1]
            for gate in gates:
                gate.open()
        assert outcomes == [["passed"]] * 3
        assert log == [*gates, crash_once, crash_once, *gates, "last"]


async def test_handlers_that_crash_at_once_crash_the_actor_once_and_each_asker_hears_its_own() -> None:
    async def crash(_: Actor) -> None:
        await gate.wait()
        raise ValueError(f"number {next(numbers)}")

    numbers = itertools.count(1)
    gate = trio.Event()
    async with ActorSystem() as system:
        with recording(system) as recorder:
            ref = system.spawn(ScriptedActor, options=wide(3, max_deliveries=1), backoff=AT_ONCE)
            async with trio.open_nursery() as nursery:
                outcomes = [collect(nursery, ref, crash) for _ in range(3)]
                await wait_all_tasks_blocked()
                gate.set()
            causes = [outcome.__cause__ for [outcome] in outcomes if isinstance(outcome, ActorCrashed)]
            assert sorted(str(cause) for cause in causes) == ["number 1", "number 2", "number 3"]
            await ref.ask("next")
            [crashed] = [event.error for event in recorder.events if event.kind == "crashed"]
            assert isinstance(crashed, ExceptionGroup)
            assert len(crashed.exceptions) == 3
            assert ref.snapshot().restarts == 1
            assert_balanced(ref.snapshot())


async def test_an_incarnation_that_crashed_takes_no_further_message() -> None:
    async def crash_when_told(_: Actor) -> None:
        await gate.wait()
        raise ValueError("boom")

    async def busy(actor: ScriptedActor) -> int:
        gate.set()
        await trio.lowlevel.cancel_shielded_checkpoint()
        await trio.lowlevel.cancel_shielded_checkpoint()
        return id(actor)

    gate = trio.Event()
    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor, options=wide(2, max_deliveries=1), backoff=AT_ONCE)
        async with trio.open_nursery() as nursery:
            collect(nursery, ref, crash_when_told)
            await wait_all_tasks_blocked()
            outcomes = [collect(nursery, ref, busy), collect(nursery, ref, busy)]
        [first], [second] = outcomes
        assert first != second  # while the first was handled, the other worker crashed


async def test_nothing_that_was_crashed_or_cancelled_is_lost(autojump_clock: MockClock) -> None:
    async with ActorSystem(intensity=OFTEN) as system:
        ref = system.spawn(ScriptedActor, options=wide(3, capacity=4), backoff=AT_ONCE)

        async def wait_and_crash(_: Actor) -> None:
            await trio.sleep(0.1)
            raise ValueError("boom")

        async with trio.open_nursery() as nursery:
            outcomes = [collect(nursery, ref, what) for what in [wait_and_crash, "x", hang] * 5]
            for _ in range(30):
                assert_balanced(ref.snapshot())
                await trio.sleep(0.05)
            ref.request_stop(grace=0)
        assert all(len(outcome) == 1 for outcome in outcomes)
        assert_balanced(ref.snapshot())


# --- workers -------------------------------------------------------------------------------------


async def test_no_more_handlers_run_at_once_than_the_concurrency_allows() -> None:
    gate = Gate()
    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor, options=wide(3))
        async with trio.open_nursery() as nursery:
            outcomes = [collect(nursery, ref, gate) for _ in range(7)]
            await wait_all_tasks_blocked()
            assert (gate.entered, ref.snapshot().in_flight, ref.snapshot().queued) == (3, 3, 4)
            gate.open()
        assert outcomes == [["passed"]] * 7


async def test_workers_are_started_on_demand_and_stay() -> None:
    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor, options=wide(100))
        await ref.ask("x")

        def tasks() -> int:
            return trio.lowlevel.current_statistics().tasks_living

        idle = tasks()
        for _ in range(10):
            await ref.ask("one at a time")
        assert tasks() == idle
        for more in (3, 2, 3):
            gate = Gate()
            async with trio.open_nursery() as nursery:
                for _ in range(more):
                    collect(nursery, ref, gate)
                await wait_all_tasks_blocked()
                gate.open()
            await wait_all_tasks_blocked()
        assert tasks() == idle + 2


async def test_an_idle_actor_keeps_neither_its_last_message_nor_its_last_reply() -> None:
    class Thing:
        pass

    async def reply_with_a_thing(_: Actor) -> Thing:
        return Thing()

    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor)
        reply = weakref.ref(await ref.ask(reply_with_a_thing))
        thing = Thing()
        message = weakref.ref(thing)
        ref.tell(thing)
        del thing
        await wait_all_tasks_blocked()
        gc.collect()
        assert (message(), reply()) == (None, None)


async def test_a_receive_that_is_no_coroutine_crashes_with_a_clear_error() -> None:
    class Old(Actor):
        def receive(self, message: object) -> object:  # type: ignore[override]
            return message

    class Empty(Actor):
        pass

    async with ActorSystem(on_excess="isolate", intensity=RestartIntensity(0)) as system:
        for factory, error in ((Old, TypeError), (Empty, NotImplementedError)):
            ref = system.spawn(factory, options=ONCE)
            crash = await outcome_of(ref.ask("x"))
            assert isinstance(crash, ActorCrashed)
            assert isinstance(crash.__cause__, error)


# --- context -------------------------------------------------------------------------------------


color: ContextVar[str] = ContextVar("color", default="none")


async def color_seen(_: Actor) -> str:
    return color.get()


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_context_of_the_spawner_or_the_sender_reaches_no_handler(concurrency: int) -> None:
    color.set("red")
    gate = Gate()
    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor, options=wide(concurrency))
        assert await ref.ask(color_seen) == "none"
        if concurrency > 1:
            ref.tell(gate)
            await wait_all_tasks_blocked()
            ref.tell(gate)  # starts another worker, in here
            await wait_all_tasks_blocked()
            gate.open()
            assert await ref.ask(color_seen) == "none"


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_what_an_actor_sets_at_its_start_holds_for_this_incarnation_only(concurrency: int) -> None:
    class Painter(ScriptedActor):
        async def on_start(self) -> None:
            seen.append(color.get())
            color.set("blue")

    seen: list[str] = []
    async with ActorSystem() as system:
        ref = system.spawn(Painter, options=wide(concurrency, max_deliveries=1), backoff=AT_ONCE)
        assert await ref.ask(color_seen) == "blue"
        ref.tell(boom)
        assert await ref.ask(color_seen) == "blue"
        assert seen == ["none", "none"]
        assert color.get() == "none"


# --- what is no crash ----------------------------------------------------------------------------


class Catastrophe(BaseException):
    """Not an Exception, as KeyboardInterrupt is none."""


@pytest.mark.parametrize(
    "options", [wide(1), wide(2), wide(1, cancel_abandoned=True), wide(2, cancel_abandoned=True)]
)
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, Catastrophe])
def test_what_is_no_exception_ends_the_program_and_restarts_nothing(
    kind: type[BaseException], options: ActorOptions
) -> None:
    async def end_it_all(_: Actor) -> None:
        raise kind

    async def main() -> None:
        async with ActorSystem() as system:
            with recording(system) as recorder:
                try:
                    await system.spawn(ScriptedActor, options=options).ask(end_it_all)
                finally:
                    kinds.extend(recorder.kinds("/scriptedactor-1"))

    kinds: list[str] = []
    with pytest.raises(BaseExceptionGroup) as caught:
        trio.run(main)
    assert [type(leaf) for leaf in leaves(caught.value)] == [kind]
    assert kinds == ["started"]


def test_a_keyboard_interrupt_in_a_group_with_errors_is_not_lost() -> None:
    async def both(_: Actor) -> None:
        raise BaseExceptionGroup("both", [ValueError("boom"), KeyboardInterrupt()])

    async def main() -> None:
        async with ActorSystem() as system:
            try:
                await system.spawn(ScriptedActor, name="p").ask(both)
            finally:
                seen.append(system.tree().find("/p"))

    seen: list[Any] = []
    with pytest.raises(BaseExceptionGroup) as caught:
        trio.run(main)
    assert [type(leaf) for leaf in leaves(caught.value)] == [KeyboardInterrupt]


def test_a_real_interrupt_ends_the_program_and_leaves_nobody_waiting() -> None:
    async def interrupt(_: Actor) -> None:
        signal.raise_signal(signal.SIGINT)

    async def main() -> None:
        async with ActorSystem() as system:
            ref = system.spawn(ScriptedActor)
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(ref.ask, "x")
                await ref.ask(interrupt)

    with pytest.raises(BaseException) as caught:
        trio.run(main)
    assert [type(leaf) for leaf in leaves(caught.value)] == [KeyboardInterrupt]


async def test_no_interrupt_comes_while_a_worker_becomes_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    async def parked(abort: Any) -> Any:
        protected.append(trio.lowlevel.currently_ki_protected())
        return await trio.lowlevel.wait_task_rescheduled(abort)

    protected: list[bool] = []
    monkeypatch.setattr(incarnation, "wait_task_rescheduled", parked)
    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor)
        await ref.ask("first")
        await wait_all_tasks_blocked()
        await ref.ask("second")
    assert protected == [True, True]


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_a_crash_beside_a_cancellation_is_reported_and_the_cancellation_goes_on(
    autojump_clock: MockClock, concurrency: int
) -> None:
    async def both(_: Actor) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("boom")

    async with ActorSystem() as system:
        with recording(system) as recorder:
            ref = system.spawn(ScriptedActor, name="p", options=wide(concurrency))
            async with trio.open_nursery() as nursery:
                outcome = collect(nursery, ref, both)
                await wait_all_tasks_blocked()
                ended = await ref.stop(grace=1)
            assert trio.current_time() == 1
            assert [str(leaf) for leaf in leaves(ended.error or Exception())] == ["boom"]
            assert [type(error) for error in outcome] == [ActorCrashed]
            assert recorder.kinds("/p") == ["started", "crashed", "stopped"]


async def test_a_cancelled_block_cancels_handlers_and_restarts_nothing() -> None:
    gate = Gate()
    system = ActorSystem()
    with recording(system) as recorder, trio.CancelScope() as scope:
        async with system:
            ref = system.spawn(ScriptedActor, name="p", options=wide(2))
            ref.tell(gate)
            ref.tell(gate)
            await wait_all_tasks_blocked()
            scope.cancel()
    assert (gate.cancelled, gate.passed) == (2, 0)
    assert recorder.pairs == [("starting", "/"), ("started", "/p"), ("stopped", "/p")]
    [letter, _] = system.dead_letters
    assert (letter.path, letter.reason) == ("/p", "stopped")
