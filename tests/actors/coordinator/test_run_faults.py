"""Runs while models come, go and crash."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from helpers.coordinator_runs import ALL, NOW, make_run, run, three
from helpers.model_actors import AT_ONCE, register
from ultra.actors.coordinator.run import Run
from ultra.errors import ModelError, QuorumNotReached
from ultra.messages.request import ModelRequest
from ultra.orchestrator.tree import ModelTree
from ultra.strategies import Synthesize
from ultra.supervisor import RestartIntensity
from ultra.testing import FakeModel

GUIDE = Synthesize(stages=ALL)

# --- models that come, go and crash ------------------------------------------------------------------


async def test_a_model_that_is_removed_while_it_is_asked_is_a_failure_of_that_model(
    autojump_clock: MockClock,
) -> None:
    models = three(a=FakeModel(name="a", seconds=1000))
    results = []
    async with ModelTree(models, random=Random(1), intensity=NOW) as tree:

        async def go() -> None:
            results.append(await Run(*make_run(tree, models, GUIDE)).execute())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(go)
            await trio.sleep(1)
            await tree.remove(models[0], drain=False, grace=0)
    assert [failure.error for failure in results[0].failures] == ["ActorStopped"] * 2
    assert results[0].synthesis_source == "primary"


async def test_a_model_that_is_down_is_left_out_and_can_be_revived() -> None:
    models = three()

    async def call(*_arguments: Any, **_more: Any) -> Any:
        await trio.lowlevel.checkpoint()
        raise ZeroDivisionError("a bug")

    healthy, models[0].client.call = models[0].client.call, call  # type: ignore[method-assign]
    async with ModelTree(models, random=Random(1), intensity=RestartIntensity(0, within=5.0)) as tree:
        result = await Run(*make_run(tree, models, GUIDE)).execute()
        assert result.status == "degraded"
        assert [(failure.error, failure.stage) for failure in result.failures] == [("ActorDown", "initial")]
        again = await Run(*make_run(tree, models, GUIDE)).execute()
        assert "a bug" in again.failures[0].message

        models[0].client.call = healthy  # type: ignore[method-assign]
        tree.revive(models[0])
        assert (await Run(*make_run(tree, models, GUIDE)).execute()).status == "success"


async def test_a_bug_that_crashes_a_model_once_is_not_noticed_by_the_run() -> None:
    models = three()
    crashes = 1
    healthy = models[0].client.call

    async def call(*arguments: Any, **more: Any) -> Any:
        nonlocal crashes
        if crashes:
            crashes -= 1
            raise ZeroDivisionError("a bug")
        return await healthy(*arguments, **more)

    models[0].client.call = call  # type: ignore[method-assign]
    result = await run(models)
    assert (result.status, result.failures) == ("success", [])
    metrics = models[0].metrics.snapshot()
    assert metrics.requests == metrics.successes + metrics.failures + metrics.cancelled


@pytest.mark.parametrize("seed", range(10))
async def test_many_runs_at_once_all_end_as_they_would_alone(seed: int, autojump_clock: MockClock) -> None:
    random = Random(seed)

    async def answer(request: ModelRequest) -> str:
        await trio.sleep(random.choice([0, 0.1, 1, 30]))
        if random.random() < 0.3:
            raise ModelError("fickle", kind=random.choice(["server", "bad_request"]))
        return f"I read {request.prompt}"

    models = [register(FakeModel(answer), name, retry=AT_ONCE) for name in "abc"]
    ends = 0
    async with ModelTree(models, random=random, intensity=NOW) as tree:

        async def go() -> None:
            nonlocal ends
            with trio.move_on_after(random.choice([0.5, 5, 1000])):
                try:
                    result = await Run(
                        *make_run(tree, models, GUIDE, timeout=random.choice([2, 20, 200]))
                    ).execute()
                except QuorumNotReached:
                    pass
                else:
                    assert result.final_synthesis is not None
                    assert set(result.initial_responses) | {f.model_name for f in result.failures} == set(
                        "abc"
                    )
            ends += 1

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(go)
        await trio.testing.wait_all_tasks_blocked()
        for model in models:
            assert tree.target(model).ref.snapshot().in_flight == 0
            metrics = model.metrics.snapshot()
            assert metrics.requests == metrics.successes + metrics.failures + metrics.cancelled
    assert ends == 50
