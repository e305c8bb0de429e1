"""Actors that end of their own will."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from helpers.noting_actor import Noting
from helpers.scripted_actors import (
    AT_ONCE,
    Gate,
    ScriptedActor,
    boom,
    collect,
    outcome_of,
    recording,
    wide,
)
from ultra.actors import Actor, ActorOptions, ActorState
from ultra.errors import ActorStopped
from ultra.supervisor import ActorSystem


async def finish(actor: ScriptedActor) -> str:
    actor.finish()
    return "finished"


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_a_transient_actor_that_finishes_has_ended(concurrency: int) -> None:
    async with ActorSystem() as system:
        with recording(system) as recorder:
            ref = system.spawn(ScriptedActor, restart="transient", options=wide(concurrency))
            async with trio.open_nursery() as nursery:
                outcome = collect(nursery, ref, finish)
                ended = await ref.watch()
            assert outcome == ["finished"]
            assert (ended.state, ended.error) == (ActorState.STOPPED, None)
            assert recorder.kinds("/scriptedactor-1") == ["started", "stopped"]


async def test_a_permanent_actor_that_finishes_is_restarted_and_its_inbox_kept() -> None:
    log: list[Any] = []
    async with ActorSystem() as system:
        ref = system.spawn(Noting, log, backoff=AT_ONCE)
        ref.tell(finish)
        assert await ref.ask("next") == "next"
        assert ref.snapshot().restarts == 1
    assert log == ["made", "started", finish, "stopped", "made", "started", "next", "stopped"]


async def test_an_actor_that_finishes_completes_what_it_has_in_hand() -> None:
    gate = Gate()
    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor, restart="transient", options=wide(2))
        async with trio.open_nursery() as nursery:
            in_hand = collect(nursery, ref, gate)
            await wait_all_tasks_blocked()
            await ref.ask(finish)
            queued = collect(nursery, ref, "too late for this one")
            await wait_all_tasks_blocked()
            assert (in_hand, queued) == ([], [])
            gate.open()
        assert in_hand == ["passed"]
        assert [type(error) for error in queued] == [ActorStopped]


async def test_an_actor_may_finish_while_it_starts() -> None:
    class Brief(Noting):
        async def on_start(self) -> None:
            await super().on_start()
            self.finish()

    log: list[Any] = []
    async with ActorSystem() as system:
        ref = system.spawn(Brief, log, restart="temporary")
        assert isinstance(await outcome_of(ref.ask("x")), ActorStopped)
    assert log == ["made", "started", "stopped"]


async def test_an_actor_that_finishes_before_its_first_message_has_ended_as_well() -> None:
    def make() -> Actor:
        actors.append(ScriptedActor())
        return actors[-1]

    actors: list[Actor] = []
    async with ActorSystem() as system:
        ref = system.spawn(make, restart="transient")
        await wait_all_tasks_blocked()
        actors[0].finish()
        await wait_all_tasks_blocked()
        assert ref.snapshot().state is ActorState.STOPPED


async def test_an_instance_that_was_replaced_can_finish_its_successor_no_more() -> None:
    async def itself(actor: ScriptedActor) -> ScriptedActor:
        return actor

    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor, options=ActorOptions(max_deliveries=1), backoff=AT_ONCE)
        old: Any = await ref.ask(itself)
        ref.tell(boom)
        new = await ref.ask(itself)
        old.finish()
        assert await ref.ask(itself) is new
