"""Runs that are read while they go on: how they begin, and what a crash makes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from helpers.run_events import assert_well_formed, orchestrator_of, read_all, text_of
from ultra import (
    BadCall,
    OrchestrationResult,
    OrchestratorClosed,
)
from ultra.actors.coordinator.run import Run
from ultra.actors.model.actor import ModelActor
from ultra.actors.model.messages import Generate
from ultra.messages.events import Chunk, ModelStarted, RunCompleted, RunFailed, StageStarted
from ultra.testing import FakeAnswer, FakeModel

if TYPE_CHECKING:
    pass

# --- beginning ---------------------------------------------------------------------------------------


async def test_a_run_is_streamed_without_a_running_orchestrator_too() -> None:
    fake = FakeModel(FakeAnswer("a", "b"), name="s")
    async with orchestrator_of(fake).stream_responses("Q") as run:
        assert_well_formed(await read_all(run))
    assert run.run_id


async def test_a_stream_is_entered_once_and_before_it_is_used() -> None:
    run = orchestrator_of(FakeModel(name="a")).stream_responses("Q")
    with pytest.raises(BadCall, match="async with"):
        await run.result()
    with pytest.raises(BadCall, match="async with"):
        await anext(run)
    async with run:
        with pytest.raises(BadCall, match="only once"):
            await run.__aenter__()
        await run.result()


async def test_a_stream_is_of_the_moment_in_which_it_is_entered() -> None:
    orchestrator = orchestrator_of(FakeModel(name="a"), FakeModel(name="b"))
    async with orchestrator:
        all_models = orchestrator.stream_responses("Q", stages=["initial"])
        one_model = orchestrator.stream_responses("Q", models=["b"])
        await orchestrator.unregister_model("b")
        orchestrator.register_model("c", FakeModel(name="c"), weight=9)
        async with all_models:
            assert list((await all_models.result()).initial_responses) == ["c", "a"]
        with pytest.raises(BadCall, match="unknown model 'b'"):
            await one_model.__aenter__()
        assert set(orchestrator.get_prioritized_models()) == {"a", "c"}
        assert "/models/b" not in str(orchestrator.tree())


async def test_a_stream_that_cannot_begin_leaves_no_actors_behind() -> None:
    orchestrator = orchestrator_of(FakeModel(name="a"), FakeModel(name="b"))
    run = orchestrator.stream_responses("Q", models=["b"])
    await orchestrator.unregister_model("b")
    with pytest.raises(BadCall, match="unknown model 'b'"):
        await run.__aenter__()


async def test_a_stream_of_an_orchestrator_that_was_closed_meanwhile_is_refused() -> None:
    orchestrator = orchestrator_of(FakeModel(name="a"))
    async with orchestrator:
        run = orchestrator.stream_responses("Q")
    with pytest.raises(OrchestratorClosed):
        await run.__aenter__()


# --- crashes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("crashes", [1, 2])
async def test_a_crash_of_the_coordinator_is_shown_as_restarts_and_ends_the_run_once(
    crashes: int, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    execute = Run.execute
    left = crashes

    async def crashing(self: Run) -> OrchestrationResult:
        nonlocal left
        result = await execute(self)
        if left:
            left -= 1
            raise ZeroDivisionError("a bug")
        return result

    monkeypatch.setattr(Run, "execute", crashing)
    orchestrator = orchestrator_of(
        FakeModel(FakeAnswer("a", "b"), name="s", seconds=1, piece_seconds=1), cache_enabled=False
    )
    async with orchestrator, orchestrator.stream_responses("Q", stages=["initial"]) as run:
        events = await read_all(run)
    assert_well_formed(events)
    assert text_of(events, "initial", "s") == "ab"
    assert sum(isinstance(event, StageStarted) for event in events) == 2
    assert sum(isinstance(event, ModelStarted) for event in events) == 2
    assert [event.restart for event in events if isinstance(event, Chunk)] == [False, False, True, False]
    if crashes == 1:
        assert isinstance(events[-1], RunCompleted)
    else:
        assert isinstance(events[-1], RunFailed)
        assert events[-1].error == "ActorCrashed"


async def test_a_crash_of_a_model_in_the_middle_of_its_text_is_shown_as_a_restart(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    answer = ModelActor._answer
    left = 1

    async def crashing(self: ModelActor, message: Generate, *arguments: Any) -> Any:
        nonlocal left
        if left and message.request.prompt == "another question":
            left -= 1
            raise ZeroDivisionError("a bug")
        return await answer(self, message, *arguments)

    monkeypatch.setattr(ModelActor, "_answer", crashing)
    fake = FakeModel(FakeAnswer("a", "b", "c"), name="s", seconds=1, piece_seconds=1)
    orchestrator = orchestrator_of(fake)
    async with orchestrator, orchestrator.stream_responses("Q", stages=["initial"]) as run:
        await trio.sleep(2.5)
        first = await anext(run), await anext(run), await anext(run)
        await orchestrator.get_model_response("s", "another question")
        events = [*first, *await read_all(run)]
    assert_well_formed(events)
    assert isinstance(events[-1], RunCompleted)
    chunks = [event for event in events if isinstance(event, Chunk)]
    assert [event.restart for event in chunks].count(True) == 1
    assert (chunks[0].text, text_of(events, "initial", "s")) == ("ab", "abc")


async def test_cancelling_the_task_that_streams_ends_everything(autojump_clock: MockClock) -> None:
    slow = FakeModel(name="slow", seconds=1000)
    orchestrator = orchestrator_of(slow)
    async with orchestrator:
        with trio.move_on_after(1):
            async with orchestrator.stream_responses("Q") as run:
                await read_all(run)
        await wait_all_tasks_blocked()
        assert slow.cancelled == 1
    assert orchestrator.get_metrics()["slow"].cancelled == 1
