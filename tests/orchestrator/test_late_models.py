"""A model that misses its time has failed, wherever that shows; one that became needless has not."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import trio
from structlog.testing import capture_logs

from helpers.event_loops import on_every_loop
from ultra import (
    BreakerPolicy,
    DeadlineExceeded,
    ModelError,
    MultiLLMOrchestrator,
    QuorumNotReached,
    RetryPolicy,
    Vote,
)
from ultra.testing import FakeAnswer, FakeModel

if TYPE_CHECKING:
    from trio.testing import MockClock

    from ultra import OrchestrationResult

AT_ONCE = RetryPolicy(max_retries=3, initial=0, maximum=0)
NEVER = math.inf


def orchestrator_of(*fakes: FakeModel, **settings: Any) -> MultiLLMOrchestrator:
    settings = {"retry": AT_ONCE, "cache_enabled": False, "stages": ["initial"], **settings}
    orchestrator = MultiLLMOrchestrator(**settings)
    for weight, fake in enumerate(reversed(fakes), start=1):
        orchestrator.register_model(fake.name, fake, weight)
    return orchestrator


def failed_of(result: OrchestrationResult, name: str) -> tuple[int, int, int]:
    metrics = result.metrics[name]
    return metrics.successes, metrics.failures, metrics.cancelled


def lines(events: list[Any], name: str, model: str) -> list[Any]:
    return [event for event in events if event["event"] == name and event["model"] == model]


@pytest.mark.parametrize("limit", [{"timeout": 5}, {"grace": 5}])
@pytest.mark.parametrize("failed_before", [0, 2])
async def test_a_model_that_misses_deadline_or_grace_has_failed(
    limit: dict[str, Any], failed_before: int, autojump_clock: MockClock
) -> None:
    failures = [ModelError("down for a moment", kind="server") for _ in range(failed_before)]
    slow = FakeModel([*failures, FakeAnswer("late", seconds=NEVER)], name="slow")
    breaker = BreakerPolicy(consecutive_failures=1)
    with capture_logs() as events:
        async with orchestrator_of(FakeModel(name="quick"), slow, breaker=breaker) as orchestrator:
            result = await orchestrator.process_responses("Q", **limit)
            health = orchestrator.health()
    [failure] = result.failures
    attempts = failed_before + 1
    assert (failure.model_name, failure.error, failure.attempts) == ("slow", "DeadlineExceeded", attempts)
    assert failed_of(result, "slow") == (0, 1, 0)
    assert failed_of(result, "quick") == (1, 0, 0)
    assert health["slow"].status == "down"
    assert "circuit is open" in health["slow"].reasons[0]
    assert "did not come in time" in health["slow"].reasons[1]
    assert health["quick"].status == "up"
    failed = lines(events, "attempt failed", "slow")
    assert [event["attempt"] for event in failed] == list(range(1, attempts + 1))
    assert "did not come in time" in failed[-1]["error"]
    [end] = lines(events, "all attempts failed", "slow")
    assert (end["attempts"], end["log_level"], end["run_id"]) == (attempts, "critical", result.run_id)
    assert lines(events, "circuit opened", "slow")


@on_every_loop
async def test_so_it_is_on_every_loop() -> None:
    slow = FakeModel(name="slow", seconds=NEVER)
    async with orchestrator_of(FakeModel(name="quick"), slow) as orchestrator:
        result = await orchestrator.process_responses("Q", grace=0)
        assert orchestrator.health()["slow"].status == "degraded"
        assert orchestrator.get_metrics()["slow"].failures == 1
    assert [(failure.model_name, failure.attempts) for failure in result.failures] == [("slow", 1)]


async def test_a_call_that_became_needless_has_not_failed(autojump_clock: MockClock) -> None:
    slow = FakeModel(name="slow", seconds=NEVER)
    fakes = FakeModel("42", name="a"), FakeModel("42", name="b"), slow
    breaker = BreakerPolicy(consecutive_failures=1)
    with capture_logs() as events:
        async with orchestrator_of(*fakes, breaker=breaker, stages=None) as orchestrator:
            result = await orchestrator.process_responses("Q", strategy=Vote(at_once=True), timeout=100)
            await trio.testing.wait_all_tasks_blocked()
            assert orchestrator.health()["slow"].status == "up"
            metrics = orchestrator.get_metrics()["slow"]
    assert (result.failures, metrics.failures, metrics.cancelled) == ([], 0, 1)
    assert not lines(events, "attempt failed", "slow")
    assert not lines(events, "all attempts failed", "slow")


async def test_a_caller_that_goes_away_fails_no_model(autojump_clock: MockClock) -> None:
    async with orchestrator_of(FakeModel(name="slow", seconds=NEVER)) as orchestrator:
        with trio.move_on_after(1):
            await orchestrator.process_responses("Q", timeout=100)
        await trio.testing.wait_all_tasks_blocked()
        assert orchestrator.health()["slow"].status == "up"
        metrics = orchestrator.get_metrics()["slow"]
    assert (metrics.failures, metrics.cancelled) == (0, 1)


async def test_those_asked_one_after_the_other_fail_in_the_same_way(autojump_clock: MockClock) -> None:
    slow = FakeModel(["1", FakeAnswer("late", seconds=NEVER)], name="slow")
    quick = FakeModel("2", name="quick"), FakeModel("3", name="other")
    async with orchestrator_of(slow, *quick, stages=["initial", "synthesis"]) as orchestrator:
        result = await orchestrator.process_responses("Q", timeout=100)
    synthesis = [failure for failure in result.failures if failure.stage == "synthesis"]
    assert [(failure.model_name, failure.attempts) for failure in synthesis] == [("slow", 1)]
    assert failed_of(result, "slow") == (1, 1, 0)


@on_every_loop
async def test_a_single_request_that_is_late_has_failed() -> None:
    async with orchestrator_of(FakeModel(name="slow", seconds=NEVER)) as orchestrator:
        with pytest.raises(DeadlineExceeded):
            await orchestrator.get_model_response("slow", "Q", timeout=0.01)
        assert orchestrator.health()["slow"].status == "degraded"
        metrics = orchestrator.get_metrics()["slow"]
    assert (metrics.failures, metrics.cancelled, metrics.requests) == (1, 0, 1)


async def test_of_those_that_share_a_call_only_the_late_one_fails_and_the_call_goes_on(
    autojump_clock: MockClock,
) -> None:
    slow = FakeModel(name="slow", seconds=10)
    async with orchestrator_of(slow, cache_enabled=True) as orchestrator, trio.open_nursery() as nursery:

        async def patient() -> None:
            result = await orchestrator.process_responses("Q")
            assert result.status == "success"

        nursery.start_soon(patient)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(QuorumNotReached):
            await orchestrator.process_responses("Q", timeout=5)
        metrics = orchestrator.get_metrics()["slow"]
        assert (metrics.failures, metrics.successes, metrics.attempts) == (1, 0, 1)
        assert orchestrator.health()["slow"].status == "up"  # nothing is known of the call so far
        await trio.sleep(10)
        metrics = orchestrator.get_metrics()["slow"]
        assert (metrics.failures, metrics.successes, metrics.cancelled) == (1, 1, 0)


async def test_a_model_that_waits_for_its_own_limits_is_late_but_its_provider_is_well(
    autojump_clock: MockClock,
) -> None:
    async def receive(prompt: str) -> str:
        await trio.sleep(10)
        return prompt

    orchestrator = orchestrator_of(FakeModel(name="quick"), breaker=BreakerPolicy(consecutive_failures=1))
    from ultra import Limits  # noqa: PLC0415

    orchestrator.register_model("narrow", receive, limits=Limits(concurrency=1))
    async with orchestrator, trio.open_nursery() as nursery:
        nursery.start_soon(orchestrator.process_responses, "first")
        await trio.testing.wait_all_tasks_blocked()
        result = await orchestrator.process_responses("second", timeout=5)
        assert [(failure.model_name, failure.attempts) for failure in result.failures] == [("narrow", 0)]
        assert orchestrator.health()["narrow"].status == "up"
        assert orchestrator.get_metrics()["narrow"].failures == 1
