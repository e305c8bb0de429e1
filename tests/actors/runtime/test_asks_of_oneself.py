"""Actors that ask themselves, wait for themselves, or stop themselves."""

from __future__ import annotations

from typing import Any

import pytest

from helpers.scripted_actors import (
    Add,
    ScriptedActor,
    assert_balanced,
    outcome_of,
    recording,
    wide,
)
from ultra.actors import ActorOptions, AskGroup
from ultra.errors import (
    UsageError,
)
from ultra.faults import FaultPlan
from ultra.supervisor import ActorSystem


async def test_an_actor_that_asks_itself_gets_an_error_instead_of_waiting_for_ever() -> None:
    async def ask_yourself(actor: ScriptedActor) -> object:
        return str(await outcome_of(actor.ref.ask("x")))

    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor)
        assert "actor '/scriptedactor-1' waits for itself" in str(await ref.ask(ask_yourself))
        snapshot = ref.snapshot()
        assert (snapshot.handled, snapshot.rejected, snapshot.queued) == (1, 1, 0)
        assert_balanced(snapshot)


@pytest.mark.parametrize("fault", ["duplicate", "drop", "reorder"])
async def test_an_actor_that_asks_itself_gets_an_error_under_a_fault_plan_too(fault: str) -> None:
    async def ask_yourself(actor: ScriptedActor) -> object:
        return str(await outcome_of(actor.ref.ask("x")))

    async with ActorSystem(faults=FaultPlan().add(fault, "/**", message=str)) as system:
        ref = system.spawn(ScriptedActor)
        assert "actor '/scriptedactor-1' waits for itself" in str(await ref.ask(ask_yourself))
        await ref.ask(ask_yourself)
    assert_balanced(ref.snapshot())


async def test_an_actor_that_asks_itself_in_a_group_gets_an_error_as_its_reply() -> None:
    async def ask_yourself(actor: ScriptedActor) -> object:
        with AskGroup[str, int]() as asks:
            asks.ask(actor.ref, Add(1, 2), "me")
            return str((await asks.next()).error)

    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor)
        assert "actor '/scriptedactor-1' waits for itself" in str(await ref.ask(ask_yourself))
        snapshot = ref.snapshot()
        assert (snapshot.handled, snapshot.rejected, snapshot.queued) == (1, 1, 0)
        assert_balanced(snapshot)


async def test_an_actor_with_a_worker_to_spare_may_ask_itself_in_a_group() -> None:
    async def ask_yourself(actor: ScriptedActor) -> object:
        with AskGroup[str, int]() as asks:
            asks.ask(actor.ref, Add(1, 2), "me")
            return (await asks.next()).value

    async with ActorSystem() as system:
        assert await system.spawn(ScriptedActor, options=wide(2)).ask(ask_yourself) == Add(1, 2)


async def test_an_actor_that_asks_itself_at_its_start_gets_an_error() -> None:
    class Curious(ScriptedActor):
        async def on_start(self) -> None:
            with pytest.raises(UsageError, match="waits for itself"):
                await self.ref.ask("x")

    async with ActorSystem() as system:
        ref = system.spawn(Curious, options=wide(2))
        assert await ref.ask("after") == "after"


async def test_an_actor_that_waits_for_room_in_its_own_inbox_gets_an_error() -> None:
    async def send_yourself(actor: ScriptedActor) -> object:
        await actor.ref.send("one")
        with pytest.raises(UsageError, match="waits for itself"):
            await actor.ref.send("two")
        return "done"

    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor, options=ActorOptions(capacity=2))
        assert await ref.ask(send_yourself) == "done"
        await ref.ask("last")
        assert (ref.snapshot().handled, ref.snapshot().rejected) == (3, 1)


async def test_an_actor_with_a_worker_to_spare_may_ask_itself() -> None:
    async def ask_yourself(actor: ScriptedActor) -> object:
        return await actor.ref.ask("answer")

    async with ActorSystem() as system:
        assert await system.spawn(ScriptedActor, options=wide(2)).ask(ask_yourself) == "answer"


async def test_an_actor_may_tell_itself() -> None:
    async def tell_yourself(actor: ScriptedActor) -> None:
        actor.ref.tell("told")

    log: list[Any] = []
    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor, log)
        await ref.ask(tell_yourself)
        await ref.ask("last")
    assert log[1:] == ["told", "last"]


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("how", ["stop", "watch"])
async def test_an_actor_that_waits_for_its_own_end_gets_an_error(how: str, concurrency: int) -> None:
    async def wait_for_the_end(actor: ScriptedActor) -> object:
        with pytest.raises(UsageError, match="cannot wait for its own end"):
            await getattr(actor.ref, how)()
        return "went on"

    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor, options=wide(concurrency))
        assert await ref.ask(wait_for_the_end) == "went on"
        assert await ref.ask("alive") == "alive"


async def test_an_actor_stops_itself_by_request() -> None:
    async def stop_yourself(actor: ScriptedActor) -> str:
        actor.ref.request_stop()
        return "stopping"

    async with ActorSystem() as system:
        with recording(system) as recorder:
            ref = system.spawn(ScriptedActor)
            assert await ref.ask(stop_yourself) == "stopping"
            await ref.watch()
            assert recorder.kinds("/scriptedactor-1") == ["started", "stopped"]
