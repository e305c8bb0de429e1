"""Results: how they print, which keys they have in every form, and whose numbers stand in them."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from fastapi.encoders import jsonable_encoder
from trio.testing import MockClock

from ultra import MultiLLMOrchestrator, OrchestrationResult, Price, StageResponses
from ultra.errors import ModelError
from ultra.messages.events import RunCompleted
from ultra.testing import FakeAnswer, FakeModel


def orchestrator_of(*fakes: FakeModel, **settings: Any) -> MultiLLMOrchestrator:
    orchestrator = MultiLLMOrchestrator(max_retries=0, **settings)
    for fake in fakes:
        orchestrator.register_model(fake.name, fake)
    return orchestrator


# --- as text ------------------------------------------------------------------------------------------


async def test_a_result_prints_as_a_short_summary(autojump_clock: MockClock) -> None:
    long = FakeModel("A long text. " * 1000, name="a")
    result = await orchestrator_of(long, FakeModel(name="b", seconds=2)).process_responses(
        "Q", strategy="best_of"
    )
    assert str(result).splitlines()[0].startswith("best_of: success, 2 models answered, 2.0 s, confidence 0.")
    (_, _, text) = str(result).partition("\n\n")
    assert text == str(result.final_synthesis)
    assert str(result).count("A long text.") <= 1000
    for noise in ("ModelResponse", "ModelMetrics", "timestamp", result.run_id):
        assert noise not in str(result)


async def test_no_confidence_is_told_of_an_answer_that_is_alone(autojump_clock: MockClock) -> None:
    result = await orchestrator_of(FakeModel("Paris.", name="a")).process_responses("Q", strategy="best_of")
    assert str(result) == "best_of: success, 1 model answered, 0.0 s\n\nParis."


async def test_the_summary_has_failures_notices_and_the_cost(autojump_clock: MockClock) -> None:
    orchestrator = MultiLLMOrchestrator(max_retries=0)
    orchestrator.register_model("a", FakeModel(name="a"), price=Price(input=1e5, output=0))
    orchestrator.register_model("b", FakeModel(name="b", failures=[ModelError("away", kind="auth")]))
    result = await orchestrator.process_responses("Q", stages=["initial"])
    result.notices.append("cut to fit")
    assert str(result).splitlines() == [
        "synthesize: degraded, 1 model answered, 0.0 s, $0.1000",
        "All attempts failed for model 'b' (1 attempt): away [auth]",
        "cut to fit",
    ]


# --- in every form ------------------------------------------------------------------------------------


@pytest.fixture
async def result() -> OrchestrationResult:
    class Custom(MultiLLMOrchestrator):
        def _create_custom_prompt(self, responses: StageResponses) -> str:
            return f"custom of {responses.prompt}"

    orchestrator = Custom(samples=2, cache_enabled=False)
    orchestrator.register_model("a", FakeModel(name="a"), weight=2.0)
    orchestrator.register_model("b", FakeModel(name="b"))
    return await orchestrator.process_responses("Q", stages=["initial", "meta", "custom", "synthesis"])


async def test_all_forms_have_the_same_keys(result: OrchestrationResult) -> None:
    keys = list(dict(result))
    assert list(json.loads(msgspec.json.encode(result))) == keys
    assert list(jsonable_encoder(result)) == keys
    assert list(msgspec.to_builtins(result)) == keys
    assert list(result) == list(result.keys()) == keys
    assert {"initial_responses", "meta_responses", "final_synthesis", "metrics", "status", "steps"} <= set(
        keys
    )


async def test_the_parts_have_the_same_keys_too(result: OrchestrationResult) -> None:
    encoded = json.loads(msgspec.json.encode(result))
    by_fastapi = jsonable_encoder(result)
    assert by_fastapi["metrics"]["a"].keys() == encoded["metrics"]["a"].keys()
    assert by_fastapi["initial_responses"]["a"].keys() == encoded["initial_responses"]["a"].keys()
    assert by_fastapi["steps"][0].keys() == encoded["steps"][0].keys()
    assert by_fastapi["steps"][0]["responses"][1]["content"] == encoded["steps"][0]["responses"][1]["content"]
    assert by_fastapi["final_synthesis"]["usage"] == encoded["final_synthesis"]["usage"]


async def test_a_result_travels_as_json_and_is_the_same(result: OrchestrationResult) -> None:
    again = msgspec.json.decode(msgspec.json.encode(result), type=OrchestrationResult)
    assert again == result
    assert again["custom_responses"] == result["custom_responses"]


async def test_steps_of_any_name_read_as_responses(result: OrchestrationResult) -> None:
    assert [step.name for step in result.steps] == ["initial", "meta", "custom", "synthesis"]
    assert result["custom_responses"]["b"].content == "b: custom of Q"
    assert list(result["synthesis_responses"]) == ["a"]
    assert "custom_responses" in result
    assert "absent_responses" not in result
    assert result.get("absent_responses", 7) == 7
    with pytest.raises(KeyError, match="has no 'absent_responses'; it has: run_id, prompt"):
        result["absent_responses"]


async def test_views_have_the_first_sample_and_steps_all(result: OrchestrationResult) -> None:
    assert result.initial_responses == result["initial_responses"] == result.stages["initial"]
    assert [(each.model_name, each.sample) for each in result.steps[0].responses] == [
        ("a", 0),
        ("a", 1),
        ("b", 0),
        ("b", 1),
    ]
    assert result.initial_responses["a"] is result.steps[0].responses[0]


# --- whose numbers ------------------------------------------------------------------------------------


async def test_metrics_in_a_result_have_the_times_of_this_run_and_the_counts_of_all(
    autojump_clock: MockClock,
) -> None:
    scores = iter([0.25, 0.75])
    fake = FakeModel(name="a", seconds=1)
    async with orchestrator_of(fake, scorer=lambda _q, _a: {"a": next(scores)}) as orchestrator:
        await orchestrator.process_responses("Q", stages=["initial"], use_cache=False)
        fake.seconds = 3
        result = await orchestrator.process_responses("Q", stages=["initial", "meta"], use_cache=False)
        metrics = result.metrics["a"]
        everything = orchestrator.get_metrics()["a"]
    assert metrics.response_times == pytest.approx([3, 3])
    assert metrics.quality_scores == [0.75]
    assert (metrics.requests, metrics.successes, metrics.success_rate) == (3, 3, 1.0)
    assert metrics.average_response_time == pytest.approx(7 / 3)
    assert metrics.average_quality == 0.5
    assert everything.response_times == pytest.approx([1, 3, 3])
    assert everything.quality_scores == [0.25, 0.75]


async def test_answers_from_the_cache_have_no_times_and_all_the_same_scores() -> None:
    async with orchestrator_of(FakeModel(name="a"), scorer=lambda _q, _a: {"a": 0.5}) as orchestrator:
        await orchestrator.process_responses("Q", stages=["initial"])
        result = await orchestrator.process_responses("Q", stages=["initial"])
    metrics = result.metrics["a"]
    assert (metrics.response_times, metrics.quality_scores, metrics.cache_hits) == ([], [0.5], 1)


async def test_the_last_event_has_the_same_metrics_as_the_result(autojump_clock: MockClock) -> None:
    fake = FakeModel(FakeAnswer("x", "y"), name="a", seconds=2, piece_seconds=2)
    async with orchestrator_of(fake, cache_enabled=False) as orchestrator:
        await orchestrator.process_responses("Q", stages=["initial"])
        async with orchestrator.stream_responses("Q", stages=["initial"]) as run:
            events = [event async for event in run]
        (last,) = [event for event in events if isinstance(event, RunCompleted)]
        everything = orchestrator.get_metrics()["a"]
    assert last.result.metrics["a"].response_times == pytest.approx([4])
    assert last.result.metrics["a"].times_to_first_token == pytest.approx([2])
    assert len(everything.response_times) == 2


async def test_a_result_does_not_grow_with_what_was_asked_before() -> None:
    async with orchestrator_of(FakeModel(name="a"), cache_enabled=False) as orchestrator:
        first = len(msgspec.json.encode(await orchestrator.process_responses("Q")))
        for _ in range(300):
            await orchestrator.get_model_response("a", "Q")
        last = len(msgspec.json.encode(await orchestrator.process_responses("Q")))
        assert len(orchestrator.get_metrics()["a"].response_times) == 256
    assert last < first + 200
