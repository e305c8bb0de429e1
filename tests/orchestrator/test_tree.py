"""The actors of an orchestrator, and how they end."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from ultra import MemoryCache, MultiLLMOrchestrator, OrchestratorClosed, QuorumNotReached
from ultra.actors.coordinator.run import Run
from ultra.actors.model.registered import RegisteredModel
from ultra.actors.runtime.status import ActorSnapshot
from ultra.orchestrator.registry import ModelRegistry, Policies
from ultra.orchestrator.tree import ModelTree
from ultra.supervisor import ActorSystem, RestartIntensity
from ultra.testing import FakeModel

if TYPE_CHECKING:
    from ultra.actors.coordinator.messages import Target
    from ultra.actors.runtime.actor import ActorRef


async def test_the_tree_has_a_supervisor_for_each_model_and_a_coordinator() -> None:
    orchestrator = MultiLLMOrchestrator()
    for name in ("llama", "openai:gpt/4"):
        orchestrator.register_model(name, FakeModel())
    async with orchestrator:
        await wait_all_tasks_blocked()
        tree = orchestrator.tree()
        assert [child.name for child in tree.children] == ["models", "coordinator"]
        for path in ("/models/llama/actor", "/models/openai:gpt%2F4/actor", "/coordinator"):
            snapshot = tree.find(path)
            assert isinstance(snapshot, ActorSnapshot)
            assert snapshot.state.value == "running"


async def test_there_is_no_tree_to_show_when_nothing_runs() -> None:
    orchestrator = MultiLLMOrchestrator()
    with pytest.raises(OrchestratorClosed, match="async with"):
        orchestrator.tree()
    with pytest.raises(OrchestratorClosed):
        _ = ModelTree([], random=Random(1), intensity=RestartIntensity()).coordinator


async def test_leaving_waits_for_runs_that_can_end_within_the_grace(autojump_clock: MockClock) -> None:
    orchestrator = MultiLLMOrchestrator()
    orchestrator.register_model("slow", FakeModel(name="slow", seconds=2))
    results = []

    async def go() -> None:
        results.append(await orchestrator.process_responses("Q", stages=["initial"]))

    async with trio.open_nursery() as nursery, orchestrator:
        nursery.start_soon(go)
        await trio.sleep(1)
    assert results[0].status == "success"


async def test_leaving_cancels_what_takes_longer(autojump_clock: MockClock) -> None:
    slow = FakeModel(name="slow", seconds=1000)
    orchestrator = MultiLLMOrchestrator()
    orchestrator.register_model("slow", slow)
    errors = []

    async def go() -> None:
        try:
            await orchestrator.process_responses("Q", stages=["initial"])
        except RuntimeError as error:
            errors.append(error)

    begun = trio.current_time()
    async with trio.open_nursery() as nursery, orchestrator:
        nursery.start_soon(go)
        await trio.sleep(1)
    assert trio.current_time() < begun + 20
    assert (len(errors), slow.cancelled) == (1, 1)


async def test_a_coordinator_that_crashes_once_is_not_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    execute = Run.execute
    left = 1

    async def crashing(self: Run) -> object:
        nonlocal left
        if left:
            left -= 1
            raise ZeroDivisionError("a bug")
        return await execute(self)

    monkeypatch.setattr(Run, "execute", crashing)
    gated = FakeModel(gated=True)
    gated.gate.set()
    orchestrator = MultiLLMOrchestrator()
    orchestrator.register_model("a", gated)
    results = []

    async def go(question: str) -> None:
        results.append((await orchestrator.process_responses(question)).status)

    async with orchestrator:
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(go, f"Q{number}")
        coordinator = orchestrator.tree().find("/coordinator")
        assert isinstance(coordinator, ActorSnapshot)
        assert coordinator.restarts == 1
    assert results == ["success"] * 10


async def test_a_failed_run_is_no_crash() -> None:
    orchestrator = MultiLLMOrchestrator(max_retries=0)
    orchestrator.register_model("a", FakeModel(failures=[RuntimeError("down")]))
    async with orchestrator:
        with pytest.raises(QuorumNotReached):
            await orchestrator.process_responses("Q")
        for path in ("/coordinator", "/models/a/actor"):
            assert orchestrator.tree().find(path).restarts == 0


class ClosesSlowly(FakeModel):
    reopens = True

    def __init__(self) -> None:
        super().__init__()
        self.closing = trio.Event()

    async def aclose(self) -> None:
        self.closing.set()
        await trio.sleep(1)


async def test_a_model_that_is_removed_while_another_is_closed_is_release_once(
    autojump_clock: MockClock,
) -> None:
    registry = ModelRegistry(None, Policies())
    fakes = [ClosesSlowly(), ClosesSlowly()]
    models = [registry.register(f"m{n}", fake, 1.0, Policies()) for n, fake in enumerate(fakes)]
    tree = ModelTree(models, random=Random(1), intensity=RestartIntensity())

    async def remove(fake: ClosesSlowly, model: RegisteredModel) -> None:
        await fake.closing.wait()
        await tree.remove(model)

    async with trio.open_nursery() as nursery, tree:
        # Whichever is closed first, the other one is removed meanwhile.
        nursery.start_soon(remove, fakes[0], models[1])
        nursery.start_soon(remove, fakes[1], models[0])

    assert [model.users for model in models] == [0, 0]


@pytest.mark.parametrize("fails", ["add", "spawn"])
async def test_a_tree_that_cannot_be_entered_whole_leaves_no_task(
    fails: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    add, spawn = ModelTree.add, ActorSystem.spawn

    def failing_add(tree: ModelTree, model: RegisteredModel) -> Target:
        if model.name == "b":
            raise LookupError("no actor today")
        return add(tree, model)

    def failing_spawn(system: ActorSystem, *args: Any, **more: Any) -> ActorRef:
        if more["name"] == "coordinator":
            raise LookupError("no actor today")
        return spawn(system, *args, **more)

    if fails == "add":
        monkeypatch.setattr(ModelTree, "add", failing_add)
    else:
        monkeypatch.setattr(ActorSystem, "spawn", failing_spawn)
    registry = ModelRegistry(None, Policies())
    models = [registry.register(name, FakeModel(), 1.0, Policies()) for name in "ab"]
    before = trio.lowlevel.current_statistics().tasks_living

    with pytest.raises(LookupError, match="no actor today"):
        await ModelTree(models, random=Random(1), intensity=RestartIntensity()).__aenter__()

    assert trio.lowlevel.current_statistics().tasks_living == before
    assert [model.users for model in models] == [0, 0]


async def test_an_orchestrator_whose_entering_is_cancelled_leaves_no_task() -> None:
    class Silent(MemoryCache):
        async def keep_connected(self, *, task_status: object = None) -> None:
            await trio.sleep_forever()

    before = trio.lowlevel.current_statistics().tasks_living
    with trio.CancelScope() as scope:
        scope.cancel()
        async with MultiLLMOrchestrator(cache=Silent()):
            raise AssertionError("it was entered")

    assert trio.lowlevel.current_statistics().tasks_living == before
