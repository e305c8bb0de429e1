"""Faults of calls to models, through a whole orchestrator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from ultra import MultiLLMOrchestrator
from ultra.actors.model.limits import Limits
from ultra.actors.model.retry import RetryPolicy
from ultra.clients.adapter import ClientAdapter
from ultra.clients.wire.rate_limits import RateLimits
from ultra.errors import AllAttemptsFailed, ModelError
from ultra.faults import FaultPlan, InjectedFault
from ultra.messages.events import Chunk, ModelResponded
from ultra.testing import FakeModel

if TYPE_CHECKING:
    from trio.testing import MockClock

TEXT = "one two three four"


def _model(seconds: float = 0) -> FakeModel:
    """A model that streams the same four words, so many seconds before each."""
    return FakeModel(TEXT, seconds=seconds, piece_seconds=seconds)


def _orchestrator(plan: FaultPlan, model: FakeModel, **settings: Any) -> MultiLLMOrchestrator:
    retry = RetryPolicy(max_retries=settings.pop("max_retries", 0), initial=0.0)
    orchestrator = MultiLLMOrchestrator(faults=plan, retry=retry, **settings)
    orchestrator.register_model("llama", model)
    return orchestrator


@pytest.mark.parametrize(
    ("rule", "kind", "status"),
    [
        ({}, "server", 500),
        ({"status": 503, "retry_after": 2.0}, "overloaded", 503),
        ({"status": 401}, "auth", 401),
        ({"error": ConnectionResetError}, "connection", None),
        ({"error": ModelError("mine", kind="quota")}, "quota", None),
    ],
)
async def test_a_call_fails_as_the_rule_says(
    rule: dict[str, Any], kind: str, status: int | None, autojump_clock: MockClock
) -> None:
    model = _model()
    with pytest.raises(AllAttemptsFailed) as caught:
        await _orchestrator(FaultPlan().fail_call(**rule), model).get_model_response("llama", "hi")

    cause = caught.value.__cause__
    assert isinstance(cause, ModelError)
    assert (cause.kind, cause.status) == (kind, status)
    assert cause.retry_after == rule.get("retry_after")
    assert model.calls == []


async def test_a_failed_call_is_retried_and_the_server_is_waited_for(autojump_clock: MockClock) -> None:
    plan = FaultPlan().fail_call("llama", status=429, retry_after=7.0, times=1)
    response = await _orchestrator(plan, _model(), max_retries=1).get_model_response("llama", "hi")

    assert (response.content, response.attempts) == (TEXT, 2)
    assert trio.current_time() >= 7.0


async def test_a_rule_is_about_models_by_name_and_about_stages() -> None:
    plan = FaultPlan().fail_call("lla*", stage="synthesis").fail_call("gemini")
    orchestrator = _orchestrator(plan, _model())
    result = await orchestrator.process_responses("hi")

    assert result.initial_responses["llama"].content == TEXT
    assert result.synthesis_source == "best_candidate"
    assert plan.counts == {"fail_call": 1}


async def test_a_call_that_hangs_ends_by_its_timeout(autojump_clock: MockClock) -> None:
    plan = FaultPlan().hang_call(times=1)
    response = await _orchestrator(plan, _model(), max_retries=1).get_model_response("llama", "hi")

    assert response.attempts == 2


async def test_a_call_can_be_put_off(autojump_clock: MockClock) -> None:
    plan = FaultPlan().delay_call(seconds=5.0)
    await _orchestrator(plan, _model()).get_model_response("llama", "hi")

    assert trio.current_time() == 5.0


@pytest.mark.parametrize(("garbage", "kind"), [("empty", "content"), ("type", "protocol")])
async def test_garbage_that_is_no_text_is_a_failure(garbage: Any, kind: str) -> None:
    plan = FaultPlan().garble_call(garbage=garbage)
    with pytest.raises(AllAttemptsFailed) as caught:
        await _orchestrator(plan, _model()).get_model_response("llama", "hi")

    assert isinstance(caught.value.__cause__, ModelError)
    assert caught.value.__cause__.kind == kind


async def test_noise_is_an_answer_and_the_same_for_equal_seeds() -> None:
    answers = [
        (
            await _orchestrator(FaultPlan(seed).garble_call(), _model()).get_model_response("llama", "hi")
        ).content
        for seed in (1, 1, 2)
    ]

    assert answers[0] == answers[1] != answers[2]
    assert TEXT not in answers


async def test_a_stream_that_is_cut_off_is_begun_anew_and_the_listener_told(
    autojump_clock: MockClock,
) -> None:
    model = _model(seconds=1)
    plan = FaultPlan().cut_stream(pieces=2, stage="initial", times=1)
    orchestrator = _orchestrator(plan, model, max_retries=1)
    async with orchestrator.stream_responses("hi", stages=["initial"]) as run:
        events = [event async for event in run]

    chunks = [(event.text, event.restart) for event in events if isinstance(event, Chunk)]
    answers = [event.response.content for event in events if isinstance(event, ModelResponded)]
    assert chunks[0] == ("one ", False)  # the second piece may not have been read before it counts no more
    assert chunks[-4:] == [("one ", True), ("two ", False), ("three ", False), ("four", False)]
    assert answers == [TEXT]
    assert (len(model.calls), model.running) == (2, 0)


async def test_a_stream_can_be_cut_off_before_its_first_piece(autojump_clock: MockClock) -> None:
    model = _model(seconds=1)
    orchestrator = _orchestrator(FaultPlan().cut_stream(pieces=0, times=1), model, max_retries=1)
    async with orchestrator.stream_responses("hi", stages=["initial"]) as run:
        result = await run.result()

    assert result.initial_responses["llama"].attempts == 2
    assert len(model.calls) == 1


async def test_a_slow_stream_comes_piece_by_piece_and_whole(autojump_clock: MockClock) -> None:
    plan = FaultPlan().slow_stream(seconds=3.0)
    async with _orchestrator(plan, _model(seconds=1)).stream_responses("hi", stages=["initial"]) as run:
        times = [(event.text, event.time) async for event in run if isinstance(event, Chunk)]
        result = await run.result()

    assert times == [("one ", 4.0), ("two ", 7.0), ("three ", 10.0), ("four", 13.0)]
    assert result.initial_responses["llama"].content == TEXT


async def test_a_stream_can_be_slow_and_cut_off(autojump_clock: MockClock) -> None:
    plan = FaultPlan().slow_stream(seconds=2.0, times=1).cut_stream(pieces=1, times=1)
    model = _model(seconds=1)
    orchestrator = _orchestrator(plan, model, max_retries=1)
    async with orchestrator.stream_responses("hi", stages=["initial"]) as run:
        result = await run.result()

    assert result.initial_responses["llama"].attempts == 2
    assert (len(model.calls), model.running) == (2, 0)


async def test_a_plain_answer_is_no_stream_to_cut() -> None:
    plan = FaultPlan().cut_stream(pieces=0).slow_stream(seconds=5.0)
    response = await _orchestrator(plan, _model()).get_model_response("llama", "hi")

    assert response.content == TEXT
    assert sum(plan.counts.values()) == 0


async def test_a_model_actor_that_crashes_answers_all_the_same() -> None:
    plan = FaultPlan().crash("/models/llama/actor", before=False, times=1)
    model = _model()
    async with _orchestrator(plan, model) as orchestrator:
        result = await orchestrator.process_responses("hi", stages=["initial"])
        assert "InjectedFault" in str(orchestrator.tree())

    assert result.status == "success"
    assert len(model.calls) == 1  # the answer was in the cache by then


async def test_a_coordinator_that_crashes_begins_its_run_again() -> None:
    plan = FaultPlan().crash("/coordinator", times=1, error=InjectedFault)
    result = await _orchestrator(plan, _model()).process_responses("hi")

    assert result.status == "success"
    assert plan.counts == {"crash": 1}


async def test_what_a_provider_said_about_its_limits_is_learnt_through_a_plan() -> None:
    class Limited(FakeModel):
        rate_limits = RateLimits(requests_per_minute=600, requests_remaining=599)

    model = Limited(TEXT)
    orchestrator = _orchestrator(FaultPlan(), model, limits=Limits(learn=True))

    assert (await orchestrator.get_model_response("llama", "hi")).content == TEXT
    assert len(model.calls) == 1


def test_a_faulty_adapter_has_every_property_of_the_adapter_inside_it() -> None:
    properties = {name for name, value in vars(ClientAdapter).items() if isinstance(value, property)}
    faulty = FaultPlan().around("a", ClientAdapter(FakeModel()))
    assert properties - set(vars(type(faulty))) == set()
