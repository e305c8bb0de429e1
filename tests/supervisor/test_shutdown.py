"""The end of all actors: in order, by cancellation and by exceptions, leaving nobody behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock, wait_all_tasks_blocked

from helpers.scripted_actors import (
    Closing,
    Gate,
    ScriptedActor,
    hang,
    outcome_of,
    recording,
)
from ultra.actors import Actor, ActorOptions, ActorState
from ultra.errors import ActorStopped
from ultra.supervisor import ActorSystem

if TYPE_CHECKING:
    from ultra.actors import ActorRef

pytestmark = pytest.mark.usefixtures("no_task_is_left")

ONCE = ActorOptions(max_deliveries=1)


# --- the whole system --------------------------------------------------------------------------


async def test_actors_stop_one_after_the_other_each_within_its_own_time(autojump_clock: MockClock) -> None:
    log: list[Any] = []
    async with ActorSystem() as system:
        first = system.spawn(Closing, "first", log, 2.0)
        group = system.supervisor("group")
        refs = [first, *(group.spawn(Closing, name, log, 1.0) for name in ("second", "third"))]
        for ref in refs:
            await ref.ask("x")
    assert log == [(1.0, "third"), (2.0, "second"), (4.0, "first")]


async def test_an_actor_can_use_those_started_before_it_while_it_stops() -> None:
    class Client(ScriptedActor):
        def __init__(self, server: ActorRef) -> None:
            super().__init__()
            self.server = server

        async def on_stop(self) -> None:
            farewells.append(await self.server.ask("bye"))

    farewells: list[object] = []
    async with ActorSystem() as system:
        server = system.spawn(ScriptedActor)
        system.spawn(Client, server)
        await wait_all_tasks_blocked()
    assert farewells == ["bye"]


async def test_a_system_can_be_stopped_inside_its_block_which_goes_on() -> None:
    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor)
        system.supervisor("below").spawn(ScriptedActor)
        await system.stop()
        assert system.tree().children == ()
        with pytest.raises(ActorStopped, match="'/' has stopped"):
            system.spawn(ScriptedActor)
        assert isinstance(await outcome_of(ref.ask("x")), ActorStopped)


async def test_an_actor_can_have_its_system_stopped() -> None:
    async def stop_all(_: Actor) -> str:
        system.request_stop()
        return "as you wish"

    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor)
        assert await ref.ask(stop_all) == "as you wish"
        await system.stop()


async def test_an_actor_that_waits_for_the_end_of_its_own_system_is_cancelled_in_the_end(
    autojump_clock: MockClock,
) -> None:
    async def wait_in_vain(_: Actor) -> None:
        await system.stop()

    async with ActorSystem() as system:
        system.spawn(ScriptedActor, options=ActorOptions(grace=2.0)).tell(wait_in_vain)
        await wait_all_tasks_blocked()
        await system.stop()
        assert trio.current_time() == 2


async def test_nothing_can_be_added_to_what_is_stopping(autojump_clock: MockClock) -> None:
    async with ActorSystem() as system:
        group = system.supervisor("group")
        log: list[Any] = []
        await group.spawn(Closing, "x", log, 1.0).ask("x")
        group.request_stop()
        await trio.sleep(0.5)
        with pytest.raises(ActorStopped, match="'/group' has stopped"):
            group.spawn(ScriptedActor)
        with pytest.raises(ActorStopped):
            group.supervisor("more")
        await group.stop()


async def test_a_supervisor_can_be_stopped_alone() -> None:
    async with ActorSystem() as system:
        other = system.spawn(ScriptedActor)
        group = system.supervisor("group")
        refs = [group.spawn(ScriptedActor), group.supervisor("inner").spawn(ScriptedActor)]
        await group.stop()
        assert {(await ref.watch()).state for ref in refs} == {ActorState.STOPPED}
        assert await other.ask("fine") == "fine"
        assert [child.name for child in system.tree().children] == ["scriptedactor-1"]
        await group.stop()


# --- cancellation and exceptions ---------------------------------------------------------------


async def test_a_cancelled_block_runs_every_on_stop_shielded(autojump_clock: MockClock) -> None:
    log: list[Any] = []
    with trio.CancelScope() as scope:
        async with ActorSystem() as system:
            for name in "ab":
                await system.spawn(Closing, name, log, 1.0).ask("x")
            system.spawn(ScriptedActor).tell(hang)
            await wait_all_tasks_blocked()
            scope.cancel()
    assert scope.cancelled_caught
    assert sorted(log) == [(1.0, "a"), (1.0, "b")]  # at once, in no order


async def test_an_error_in_on_stop_of_a_cancelled_block_is_reported() -> None:
    class Clumsy(ScriptedActor):
        async def on_stop(self) -> None:
            raise OSError("the door is stuck")

    system = ActorSystem()
    with recording(system) as recorder, trio.CancelScope() as scope:
        async with system:
            await system.spawn(Clumsy, name="x").ask("x")
            scope.cancel()
    assert recorder.kinds("/x") == ["started", "crashed", "stopped"]


async def test_an_exception_of_the_block_leaves_as_itself_and_all_is_cancelled() -> None:
    gate = Gate()
    system = ActorSystem()

    async def body() -> None:
        async with system:
            system.spawn(ScriptedActor).tell(gate)
            await wait_all_tasks_blocked()
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await body()
    assert gate.cancelled == 1


async def test_a_stop_that_is_cancelled_stops_waiting_and_the_actor_stops_all_the_same(
    autojump_clock: MockClock,
) -> None:
    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor)
        ref.tell(hang)
        await wait_all_tasks_blocked()
        with trio.move_on_after(1) as scope:
            await ref.stop()
        assert scope.cancelled_caught
        assert (await ref.watch()).state is ActorState.STOPPED
        assert trio.current_time() == 5


async def test_tells_after_a_cancelled_block_has_ended_its_actors_are_refused_or_given_back() -> None:
    async def tell_on(ref: ActorRef) -> None:
        outcomes = []
        for _ in range(20):
            outcomes.append(await outcome_of(ref.send("x")))
            await trio.lowlevel.cancel_shielded_checkpoint()
        assert isinstance(outcomes[-1], ActorStopped)

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with ActorSystem() as system:
                for concurrency in (1, 3):
                    ref = system.spawn(ScriptedActor, options=ActorOptions(concurrency=concurrency))
                    await ref.ask("x")
                    nursery.start_soon(tell_on, ref)
                nursery.start_soon(tell_on, system.spawn(ScriptedActor))
                scope.cancel()
