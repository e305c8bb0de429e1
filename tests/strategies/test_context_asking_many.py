"""How a strategy asks many: it stops early, and takes samples."""

from __future__ import annotations

import math
from typing import Any

import pytest
from trio.testing import MockClock

from helpers.asking_strategies import ALL, By, ask_everybody
from helpers.coordinator_runs import Recorder, failing, run, three
from helpers.model_actors import register
from ultra import (
    MultiLLMOrchestrator,
    QuorumNotReached,
)
from ultra.errors import StrategyFailed
from ultra.messages.events import Chunk
from ultra.strategies import Answer, RunContext
from ultra.testing import FakeAnswer, FakeModel

# --- stopping early -----------------------------------------------------------------------------------


async def test_stragglers_are_cancelled_some_time_after_the_quorum_and_have_failed(
    autojump_clock: MockClock,
) -> None:
    slow = FakeModel(name="a", seconds=1000)
    models = three(a=slow, b=FakeModel(name="b", seconds=3))
    sink = Recorder()
    result = await run(models, strategy=ALL, grace=2, quorum=2, sink=sink)
    assert result.response_time == pytest.approx(5)
    assert list(result.initial_responses) == ["b", "c"]
    assert [(failure.model_name, failure.error) for failure in result.failures] == [("a", "DeadlineExceeded")]
    assert result.failures[0].message == ("Model 'a' did not answer within the 2 s of grace after the quorum")
    assert (result.status, slow.cancelled) == ("degraded", 1)
    assert [event.failed for event in sink.of("StageCompleted")] == [("a",)]


async def test_who_answers_within_the_grace_counts(autojump_clock: MockClock) -> None:
    result = await run(three(a=FakeModel(name="a", seconds=1.5)), strategy=ALL, grace=2)
    assert list(result.initial_responses) == ["a", "b", "c"]
    assert result.status == "success"
    assert result.response_time == pytest.approx(1.5)


async def test_without_grace_it_waits_for_all(autojump_clock: MockClock) -> None:
    result = await run(three(a=FakeModel(name="a", seconds=100)), strategy=ALL)
    assert result.status == "success"
    assert result.response_time == pytest.approx(100)


async def test_a_grace_of_nothing_takes_those_who_have_answered(autojump_clock: MockClock) -> None:
    result = await run(
        three(a=FakeModel(name="a", seconds=2), b=FakeModel(name="b", seconds=1)),
        strategy=ALL,
        grace=0,
        quorum=2,
    )
    assert list(result.initial_responses) == ["b", "c"]
    assert result.response_time == pytest.approx(1)


async def test_the_grace_ends_no_later_than_the_run(autojump_clock: MockClock) -> None:
    result = await run(three(a=FakeModel(name="a", seconds=100)), strategy=ALL, grace=50, timeout=4)
    assert result.response_time == pytest.approx(4)


async def test_it_stops_as_soon_as_the_answers_are_enough(autojump_clock: MockClock) -> None:
    seen: list[list[str]] = []

    def enough(responses: Any) -> bool:
        seen.append([response.model_name for response in responses])
        return len(responses) == 2

    async def until(context: RunContext) -> Answer:
        return await ask_everybody(context, until=enough)

    slow = FakeModel(name="a", seconds=1000)
    sink = Recorder()
    result = await run(three(a=slow, b=FakeModel(name="b", seconds=3)), strategy=By(until), sink=sink)
    assert seen == [["c"], ["b", "c"]]
    assert (result.status, result.failures, slow.cancelled) == ("success", [], 1)
    assert result.response_time == pytest.approx(3)
    assert sink.of("ModelFailed") == []
    assert result.metrics["a"].failures == 0


async def test_an_error_in_what_says_that_it_is_enough_ends_the_run(autojump_clock: MockClock) -> None:
    async def until(context: RunContext) -> Answer:
        return await ask_everybody(context, until=lambda _responses: 1 / 0 > 0)

    slow = FakeModel(name="a", seconds=1000)
    with pytest.raises(StrategyFailed, match="division by zero"):
        await run(three(a=slow, b=FakeModel(name="b", seconds=1)), strategy=By(until))
    assert slow.cancelled == 1


# --- samples ------------------------------------------------------------------------------------------


async def test_samples_are_different_calls_and_stand_by_weight_and_then_by_sample() -> None:
    sink = Recorder()
    result = await run(three(a=FakeModel(["a 0", "a 1"], name="a")), strategy=ALL, samples=2, sink=sink)
    step = result.steps[0]
    assert [(r.model_name, r.sample) for r in step.responses] == [
        ("a", 0),
        ("a", 1),
        ("b", 0),
        ("b", 1),
        ("c", 0),
        ("c", 1),
    ]
    assert {r.content for r in step.responses if r.model_name == "a"} == {"a 0", "a 1"}
    assert step.by_model["a"].sample == 0
    assert [(event.model_name, event.sample) for event in sink.of("ModelStarted")] == [
        (response.model_name, response.sample) for response in step.responses
    ]
    assert [event.answered for event in sink.of("StageCompleted")] == [("a", "b", "c")]


async def test_samples_have_keys_of_their_own_in_the_cache() -> None:
    fake = FakeModel(["a 0", "a 1", "a 2"])
    async with MultiLLMOrchestrator(strategy=ALL, samples=2) as orchestrator:
        orchestrator.register_model("a", fake)
        first = await orchestrator.process_responses("Q")
        again = await orchestrator.process_responses("Q", samples=3)
    assert len(fake.calls) == 3
    contents = [response.content for response in first.steps[0].responses]
    assert sorted(contents) == ["a 0", "a 1"]
    assert [response.cached for response in again.steps[0].responses] == [True, True, False]
    assert [response.content for response in again.steps[0].responses][:2] == contents


async def test_samples_are_streamed_apart() -> None:
    fake = FakeModel(FakeAnswer("x", "y"), name="a")
    orchestrator = MultiLLMOrchestrator(strategy=ALL, samples=2)
    orchestrator.register_model("a", fake)
    texts = {0: "", 1: ""}
    async with orchestrator.stream_responses("Q") as stream:
        async for event in stream:
            if isinstance(event, Chunk):
                texts[event.sample] += event.text
    assert texts == {0: "xy", 1: "xy"}


async def test_a_sample_that_fails_is_told_as_that_sample(autojump_clock: MockClock) -> None:
    once_slow = FakeModel([FakeAnswer(seconds=math.inf), "fast"])
    result = await run([register(once_slow, "a")], strategy=ALL, samples=2, timeout=3)
    assert [(failure.model_name, failure.sample) for failure in result.failures] == [("a", 0)]
    assert [response.sample for response in result.steps[0].responses] == [1]


async def test_a_strategy_may_ask_for_samples_itself() -> None:
    async def sample(context: RunContext) -> Answer:
        return await ask_everybody(context, models=context.models[:1], samples=4)

    result = await run(three(), strategy=By(sample), samples=2)
    assert [response.sample for response in result.steps[0].responses] == [0, 1, 2, 3]


async def test_the_quorum_counts_models_and_not_samples() -> None:
    with pytest.raises(QuorumNotReached, match="got 2 of the 3"):
        await run(three(a=failing("a")), strategy=ALL, samples=5, quorum=3)
