"""Actors and supervisors that are down, while the others go on, and their revival."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from helpers.scripted_actors import AT_ONCE, ScriptedActor, boom, outcome_of, recording
from ultra.actors import ActorOptions, ActorState
from ultra.errors import ActorDown, ActorStopped, BadCall
from ultra.supervisor import ActorSystem, RestartIntensity, Supervisor

pytestmark = pytest.mark.usefixtures("no_task_is_left")

ONCE = ActorOptions(max_deliveries=1)
NEVER = RestartIntensity(0)


async def isolated(supervisor: Supervisor | ActorSystem, **options: Any) -> Any:
    """An actor that is down."""
    ref = supervisor.spawn(ScriptedActor, options=ONCE, backoff=AT_ONCE, **options)
    ref.tell(boom)
    assert (await ref.watch()).state is ActorState.DOWN
    return ref


async def test_an_isolated_actor_is_down_and_the_others_go_on() -> None:
    async with ActorSystem(on_excess="isolate", intensity=NEVER) as system:
        other = system.spawn(ScriptedActor, name="other")
        ref = await isolated(system, name="x")
        assert ref.snapshot().state is ActorState.DOWN
        assert ref.snapshot().last_error == "ValueError: boom"
        assert await other.ask("fine") == "fine"


async def test_a_revived_actor_takes_messages_again_at_once() -> None:
    async with ActorSystem(on_excess="isolate", intensity=NEVER) as system:
        ref = await isolated(system, name="x")
        with recording(system) as recorder:
            system.root.revive("x")
            assert await ref.ask("back") == "back"
            await wait_all_tasks_blocked()
            assert recorder.kinds("/x") == ["revived", "started"]
        assert ref.snapshot().state is ActorState.RUNNING


async def test_to_revive_what_is_not_down_does_nothing() -> None:
    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor, name="x")
        await ref.ask("x")
        system.root.revive("x")
        await wait_all_tasks_blocked()
        assert ref.snapshot().restarts == 0
        with pytest.raises(BadCall, match="has no child 'y'; its children: x"):
            system.root.revive("y")


async def test_a_revived_actor_that_crashes_again_at_once_is_down_again_at_once(
    autojump_clock: MockClock,
) -> None:
    intensity = RestartIntensity(1, within=10.0)
    async with ActorSystem(on_excess="isolate", intensity=intensity) as system:
        ref = system.spawn(ScriptedActor, name="x", options=ONCE, backoff=AT_ONCE)
        ref.tell(boom)
        ref.tell(boom)
        await ref.watch()
        system.root.revive("x")
        ref.tell(boom)
        assert (await ref.watch()).state is ActorState.DOWN
        await trio.sleep(10.1)
        system.root.revive("x")
        ref.tell(boom)
        assert await ref.ask("the window is empty again") == "the window is empty again"


async def test_a_stop_ends_an_actor_that_is_down() -> None:
    async with ActorSystem(on_excess="isolate", intensity=NEVER) as system:
        ref = await isolated(system)
        assert (await ref.stop()).state is ActorState.STOPPED
        assert system.tree().children == ()
        assert type(await outcome_of(ref.ask("x"))) is ActorStopped


async def test_an_isolated_supervisor_takes_all_below_it_down_and_is_revived_as_a_whole() -> None:
    async with ActorSystem(on_excess="isolate", intensity=NEVER) as system:
        group = system.supervisor("group", intensity=NEVER)
        a = group.spawn(ScriptedActor, name="a", options=ONCE)
        inner = group.supervisor("inner")
        b = inner.spawn(ScriptedActor, name="b")
        await b.ask("x")
        a.tell(boom)
        for ref in (a, b):
            ended = await ref.watch()
            assert ended.state is ActorState.DOWN
            assert isinstance(await outcome_of(ref.ask("x")), ActorDown)
        assert group.snapshot().state is ActorState.DOWN
        assert inner.snapshot().state is ActorState.DOWN
        for down in (group, inner):
            with pytest.raises(ActorDown):
                down.spawn(ScriptedActor)
            with pytest.raises(ActorDown):
                down.supervisor("more")
        with pytest.raises(ActorDown, match="'/group' is down: RestartLimitExceeded"):
            group.revive("a")

        system.root.revive("group")
        assert await b.ask("back") == "back"
        assert await a.ask("back") == "back"
        assert group.snapshot().state is ActorState.RUNNING
