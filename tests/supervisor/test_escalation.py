"""What happens above a supervisor that gives up, level by level, up to the block of the system."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from helpers.scripted_actors import (
    AT_ONCE,
    Gate,
    ScriptedActor,
    Stubborn,
    boom,
    failure_of,
    leaves,
    outcome_of,
    recording,
)
from ultra.actors import Actor, ActorOptions, ActorState
from ultra.errors import ActorStopped, RestartLimitExceeded
from ultra.supervisor import ActorSystem, RestartIntensity

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ultra.actors import ActorRef
    from ultra.supervisor import Supervisor

pytestmark = pytest.mark.usefixtures("no_task_is_left")

ONCE = ActorOptions(max_deliveries=1)
NEVER = RestartIntensity(0)


def crash_with(error: Exception) -> Callable[[Actor], Awaitable[object]]:
    async def crash(_: Actor) -> object:
        raise error

    return crash


def nested(system: ActorSystem, intensities: list[RestartIntensity]) -> list[Supervisor]:
    """Supervisors, each below the one before it."""
    above: Any = system
    chain = []
    for level, intensity in enumerate(intensities):
        above = above.supervisor(f"s{level}", intensity=intensity, backoff=AT_ONCE)
        chain.append(above)
    return chain


async def test_a_crash_too_many_restarts_the_supervisor_with_all_its_children() -> None:
    async with ActorSystem() as system:
        [group] = nested(system, [NEVER])
        fragile = group.spawn(ScriptedActor, name="a", options=ONCE)
        sibling = group.spawn(ScriptedActor, name="b")
        await sibling.ask("x")
        with recording(system) as recorder:
            fragile.tell(boom)
            assert await fragile.ask("back") == "back"
            assert await sibling.ask("back") == "back"
            await wait_all_tasks_blocked()
            events = recorder.pairs
        assert events == [
            ("crashed", "/s0/a"),
            ("escalated", "/s0"),
            ("crashed", "/s0"),
            ("restarting", "/s0"),
            ("starting", "/s0"),
            ("started", "/s0/a"),
            ("started", "/s0/b"),
            ("started", "/s0"),
        ]
        assert (sibling.snapshot().restarts, group.snapshot().state) == (1, ActorState.RUNNING)


async def test_a_restarted_supervisor_counts_from_zero() -> None:
    async with ActorSystem() as system:
        [group] = nested(system, [RestartIntensity(1, within=100)])
        ref = group.spawn(ScriptedActor, name="a", options=ONCE, backoff=AT_ONCE)
        with recording(system) as recorder:
            for _ in range(4):
                ref.tell(boom)
                await ref.ask("back")
            assert recorder.paths("escalated") == ["/s0"] * 2


async def test_a_crash_past_all_supervisors_ends_the_system_with_a_group_that_names_every_cause() -> None:
    errors = [ValueError("first"), KeyError("second"), OSError("third"), LookupError("fourth")]
    system = ActorSystem(intensity=RestartIntensity(1, within=100))

    async def body() -> None:
        *_, last = nested(system, [NEVER, NEVER, RestartIntensity(1, within=100)])
        ref = last.spawn(ScriptedActor, name="x", options=ONCE, backoff=AT_ONCE)
        for error in errors:
            await outcome_of(ref.ask(crash_with(error)))
            await outcome_of(ref.ask("back"))
        await trio.sleep_forever()

    with recording(system) as recorder:
        failure = await failure_of(system, body)
    assert failure.message == "the actor system ended, since a crash went past its root supervisor"
    [top] = failure.exceptions
    assert isinstance(top, RestartLimitExceeded)
    assert top.path == "/s0"
    first_causes = [leaf for leaf in leaves(failure) if not isinstance(leaf, RestartLimitExceeded)]
    assert first_causes == errors
    assert recorder.paths("escalated") == [*["/s0/s1/s2", "/s0/s1", "/s0"] * 2, "/"]


async def test_the_error_of_the_block_stands_beside_the_crash_that_ended_it() -> None:
    system = ActorSystem(intensity=NEVER)

    async def body() -> None:
        system.spawn(ScriptedActor, name="x", options=ONCE).tell(boom)
        try:
            await trio.sleep_forever()
        finally:
            raise OSError("cleaning up failed as well")

    failure = await failure_of(system, body)
    assert {type(error) for error in failure.exceptions} == {OSError, RestartLimitExceeded}
    assert "went past its root" in failure.message


async def test_a_crash_past_the_root_cancels_the_block_and_fails_all_open_asks() -> None:
    outcomes: list[object] = []

    async def ask(ref: ActorRef) -> None:
        outcomes.append(await outcome_of(ref.ask(Gate())))

    system = ActorSystem(intensity=NEVER)
    async with trio.open_nursery() as nursery:

        async def body() -> None:
            other = system.spawn(ScriptedActor, options=ActorOptions(grace=0))
            nursery.start_soon(ask, other)
            await wait_all_tasks_blocked()
            system.spawn(ScriptedActor, options=ONCE).tell(boom)
            await trio.sleep_forever()

        await failure_of(system, body)
    assert [type(outcome) for outcome in outcomes] == [ActorStopped]


async def test_a_sibling_that_ignores_cancellation_does_not_keep_the_block_from_hearing_of_a_crash(
    autojump_clock: MockClock,
) -> None:
    stubborn = Stubborn()
    cancelled_at: list[float] = []
    system = ActorSystem(intensity=NEVER)

    async def body() -> None:
        system.spawn(ScriptedActor, options=ActorOptions(grace=1.0, stop_timeout=1.0)).tell(stubborn)
        await stubborn.entered.wait()
        system.spawn(ScriptedActor, options=ONCE).tell(boom)
        try:
            await trio.sleep_forever()
        finally:
            cancelled_at.append(trio.current_time())
            stubborn.release()

    failure = await failure_of(system, body)
    assert cancelled_at == [3.0]  # grace, the time of on_stop, and a second to react
    assert [str(leaf) for leaf in leaves(failure)][-1] == "boom"


async def test_an_isolating_supervisor_stops_the_escalation_and_the_rest_goes_on() -> None:
    async with ActorSystem(intensity=NEVER) as system:
        keeper = system.supervisor("keeper", on_excess="isolate", intensity=NEVER)
        group = keeper.supervisor("group", intensity=NEVER)
        neighbour = keeper.spawn(ScriptedActor)
        ref = group.spawn(ScriptedActor, options=ONCE)
        ref.tell(boom)
        ended = await ref.watch()
        assert ended.state is ActorState.DOWN
        assert isinstance(ended.error, RestartLimitExceeded)
        assert [str(crash) for crash in ended.error.crashes] == ["boom"]
        assert await neighbour.ask("fine") == "fine"


async def test_messages_wait_through_an_escalation() -> None:
    async with ActorSystem() as system:
        *_, last = nested(system, [NEVER, NEVER])
        ref = last.spawn(ScriptedActor, options=ONCE)
        ref.tell(boom)
        for number in range(5):
            assert await ref.ask(number) == number


async def test_a_child_that_cannot_start_escalates_too(autojump_clock: MockClock) -> None:
    class NeverStarts(Actor):
        async def on_start(self) -> None:
            raise OSError("never")

    system = ActorSystem(intensity=NEVER)

    async def body() -> None:
        [group] = nested(system, [RestartIntensity(2)])
        group.spawn(NeverStarts, backoff=AT_ONCE)
        await trio.sleep_forever()

    failure = await failure_of(system, body)
    assert [str(leaf) for leaf in leaves(failure) if isinstance(leaf, OSError)] == ["never"] * 3


async def test_a_stop_during_an_escalation_ends_the_supervisor_for_good(autojump_clock: MockClock) -> None:
    class SlowToStop(ScriptedActor):
        async def on_stop(self) -> None:
            await trio.sleep(2)

    async with ActorSystem() as system:
        [group] = nested(system, [NEVER])
        slow = group.spawn(SlowToStop)
        fragile = group.spawn(ScriptedActor, options=ONCE)
        await slow.ask("x")
        fragile.tell(boom)
        await trio.sleep(1)
        with recording(system) as recorder:
            await group.stop()
            assert trio.current_time() == 2
            assert "started" not in [kind for kind, _ in recorder.pairs]
        assert system.tree().children == ()
        assert {(await ref.watch()).state for ref in (slow, fragile)} == {ActorState.STOPPED}


async def test_leaving_the_block_during_an_escalation_ends_all_and_reports_it(
    autojump_clock: MockClock,
) -> None:
    class SlowToStop(ScriptedActor):
        async def on_stop(self) -> None:
            await trio.sleep(2)

    system = ActorSystem(intensity=NEVER)

    async def body() -> None:
        await system.spawn(SlowToStop).ask("x")
        system.spawn(ScriptedActor, options=ONCE).tell(boom)
        await trio.sleep(1)

    failure = await failure_of(system, body)
    assert trio.current_time() == 2
    assert [str(leaf) for leaf in leaves(failure)][-1] == "boom"


async def test_an_interrupt_during_an_escalation_hides_nothing_and_is_not_hidden() -> None:
    crashed = trio.Event()
    system = ActorSystem(intensity=NEVER)

    async def interrupt(_: Actor) -> None:
        await crashed.wait()
        raise KeyboardInterrupt

    async def body() -> None:
        system.spawn(ScriptedActor).tell(interrupt)
        await wait_all_tasks_blocked()
        system.spawn(ScriptedActor, options=ONCE).tell(boom)
        await wait_all_tasks_blocked()
        crashed.set()
        await trio.sleep_forever()

    failure = await failure_of(system, body)
    assert {type(leaf) for leaf in leaves(failure)} >= {KeyboardInterrupt, RestartLimitExceeded}
    assert "went past its root" in failure.message


async def test_a_cancelled_block_still_hears_of_the_escalation_before() -> None:
    async def run() -> None:
        with trio.CancelScope() as scope:
            async with ActorSystem(intensity=NEVER) as system:
                system.spawn(ScriptedActor).tell(Gate())
                await wait_all_tasks_blocked()
                system.spawn(ScriptedActor, options=ONCE).tell(boom)
                await wait_all_tasks_blocked()
                scope.cancel()
                await trio.sleep_forever()

    with pytest.raises(ExceptionGroup) as caught:
        await run()
    assert [type(leaf) for leaf in leaves(caught.value)] == [RestartLimitExceeded, ValueError]
