"""`ActorRef.watch` returns at the end of an actor: once, at once if that has come, and for nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from helpers.scripted_actors import AT_ONCE, ScriptedActor, Stubborn, boom, collect
from ultra.actors import ActorOptions, ActorRef, ActorState, Terminated
from ultra.supervisor import ActorSystem, RestartIntensity

pytestmark = pytest.mark.usefixtures("no_task_is_left")

ONCE = ActorOptions(max_deliveries=1)
NEVER = RestartIntensity(0)


def watch_in(nursery: trio.Nursery, ref: ActorRef) -> list[Terminated]:
    """Watch in a task of its own; the list gets what it hears."""
    heard: list[Terminated] = []

    async def watch() -> None:
        heard.append(await ref.watch())

    nursery.start_soon(watch)
    return heard


async def test_all_who_watch_hear_of_the_end_once_and_late_ones_at_once() -> None:
    heard: list[object] = []

    async def watch() -> None:
        heard.append(await ref.watch())

    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(watch)
            await wait_all_tasks_blocked()
            assert heard == []
            ended = await ref.stop()
        assert heard == [ended] * 3
        with trio.fail_after(0.1):
            assert await ref.watch() is ended
    assert await ref.watch() is ended


async def test_a_restart_is_no_end() -> None:
    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor, backoff=AT_ONCE, options=ONCE)
        with trio.move_on_after(0.02) as scope:
            ref.tell(boom)
            await ref.watch()
        assert scope.cancelled_caught
        assert await ref.ask("alive") == "alive"


async def test_a_watch_that_was_cancelled_leaves_nothing_behind() -> None:
    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                for _ in range(100):
                    nursery.start_soon(ref.watch)
                await wait_all_tasks_blocked()
                scope.cancel()
        assert (await ref.stop()).state is ActorState.STOPPED


async def test_who_watches_from_outside_hears_of_the_end_of_the_system() -> None:
    heard: list[ActorState] = []

    async def watch(ref: ActorRef) -> None:
        heard.append((await ref.watch()).state)

    async with trio.open_nursery() as nursery, ActorSystem() as system:
        nursery.start_soon(watch, system.supervisor("s").spawn(ScriptedActor))
        nursery.start_soon(watch, system.spawn(ScriptedActor))
        await wait_all_tasks_blocked()
    assert heard == [ActorState.STOPPED] * 2


async def test_who_watches_hears_that_the_actor_went_down_and_why() -> None:
    async with ActorSystem(on_excess="isolate", intensity=NEVER) as system, trio.open_nursery() as nursery:
        ref = system.spawn(ScriptedActor, options=ONCE)
        heard = watch_in(nursery, ref)
        await wait_all_tasks_blocked()
        ref.tell(boom)
        await wait_all_tasks_blocked()
        [ended] = heard
        assert (ended.path, ended.state, str(ended.error)) == ("/scriptedactor-1", ActorState.DOWN, "boom")
        assert await ref.watch() is ended


async def test_a_watch_of_a_revived_actor_waits_for_its_next_end() -> None:
    async with ActorSystem(on_excess="isolate", intensity=NEVER) as system, trio.open_nursery() as nursery:
        ref = system.spawn(ScriptedActor, name="x", options=ONCE)
        ref.tell(boom)
        before = await ref.watch()
        system.root.revive("x")
        heard = watch_in(nursery, ref)
        await wait_all_tasks_blocked()
        assert heard == []
        after = await ref.stop()
        assert heard in ([], [after])  # whose turn it is first does not matter
        await wait_all_tasks_blocked()
        assert heard == [after]
        assert (before.state, after.state) == (ActorState.DOWN, ActorState.STOPPED)


async def test_an_end_that_comes_before_the_cancellation_of_a_watch_is_told() -> None:
    async with ActorSystem() as system, trio.open_nursery() as nursery:
        ref = system.spawn(ScriptedActor)
        heard = watch_in(nursery, ref)
        await wait_all_tasks_blocked()
        ended = await ref.stop()
        nursery.cancel_scope.cancel()
    assert heard == [ended]


async def test_watching_is_a_checkpoint_even_when_the_end_has_come() -> None:
    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor)
        await ref.stop()
        with trio.testing.assert_checkpoints():
            await ref.watch()
        with trio.CancelScope() as scope:
            scope.cancel()
            await ref.watch()
        assert scope.cancelled_caught


async def test_one_actor_watches_another_and_a_restart_of_the_watcher_ends_its_watch() -> None:
    class Guardian(ScriptedActor):
        async def receive(self, message: Any) -> object:
            return (
                (await message.watch()).state
                if isinstance(message, ActorRef)
                else await super().receive(message)
            )

    async with ActorSystem(strategy="one_for_all") as system, trio.open_nursery() as nursery:
        watched = system.supervisor("elsewhere").spawn(ScriptedActor)
        guardian = system.spawn(Guardian, options=ActorOptions(grace=0.0))
        heard = collect(nursery, guardian, watched)
        await wait_all_tasks_blocked()
        system.spawn(ScriptedActor, options=ONCE, backoff=AT_ONCE).tell(boom)  # all are restarted
        await wait_all_tasks_blocked()
        assert heard == []
        await watched.stop()
        await wait_all_tasks_blocked()
        assert heard == [ActorState.STOPPED]  # by its second delivery


async def test_a_watch_hears_of_an_actor_that_ignores_cancellation_and_not_again_when_it_ends(
    autojump_clock: MockClock,
) -> None:
    stubborn = Stubborn()
    async with ActorSystem() as system, trio.open_nursery() as nursery:
        ref = system.spawn(ScriptedActor, options=ActorOptions(grace=1.0, stop_timeout=1.0))
        heard = watch_in(nursery, ref)
        ref.tell(stubborn)
        await stubborn.entered.wait()
        ended = await ref.stop()
        stubborn.release()
        await wait_all_tasks_blocked()
        assert heard == [ended]
        assert await ref.watch() is ended


async def test_a_revival_does_not_undo_the_end_that_a_watch_has_seen() -> None:
    heard: list[object] = []

    async def watch() -> None:
        heard.append(await ref.watch())

    async def revive() -> None:
        system.root.revive("x")

    async with ActorSystem(on_excess="isolate", intensity=NEVER) as system:
        ref = system.spawn(ScriptedActor, name="x", options=ONCE)
        for _ in range(20):  # whose turn it is first differs
            ref.tell(boom)
            before = await ref.watch()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch)
                nursery.start_soon(revive)
                await wait_all_tasks_blocked()
                ref.tell(boom)
                after = await ref.watch()
            assert heard.pop() in (before, after)
            system.root.revive("x")
