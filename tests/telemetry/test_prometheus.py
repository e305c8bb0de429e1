"""Metrics for Prometheus, as its own parser reads them."""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from helpers.event_loops import on_every_loop
from ultra import Completion, ModelError, MultiLLMOrchestrator, QuorumNotReached, RetryPolicy, Usage
from ultra._support.histogram import Histogram
from ultra.actors.model.metrics import STAGES, MetricsRecorder
from ultra.clients.pricing import Price
from ultra.messages.observers import RunOutcome
from ultra.messages.options import RunOptions
from ultra.orchestrator.run_metrics import LABELS, RunMetrics
from ultra.telemetry import prometheus_collector
from ultra.telemetry.prometheus import METRIC_NAMES
from ultra.testing import FakeModel

if TYPE_CHECKING:
    from collections.abc import Mapping

NAME = re.compile(r"ultra_[a-z][a-z0-9]*(_[a-z0-9]+)*")


def orchestrator_of(**models: Any) -> MultiLLMOrchestrator:
    orchestrator = MultiLLMOrchestrator(stages=["initial"], retry=RetryPolicy(max_retries=0))
    for name, model in models.items():
        orchestrator.register_model(name, model, price=Price(input=1e6, output=1e6))
    return orchestrator


def text_of(orchestrator: MultiLLMOrchestrator) -> str:
    registry = CollectorRegistry()
    registry.register(prometheus_collector(orchestrator))
    text: str = generate_latest(registry).decode()
    return text


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(text: str, name: str, **labels: str) -> float:
    return samples(text)[name, frozenset(labels.items())]


ANSWER = Completion("Paris.", usage=Usage(2, 1), finish_reason="stop")


async def test_actors_of_clients_that_were_never_registered_are_one_label() -> None:
    orchestrator = orchestrator_of(good=FakeModel(ANSWER))
    async with orchestrator:
        for _ in range(3):
            await orchestrator.get_model_response(FakeModel("Paris."), "Q")
        text = text_of(orchestrator)
    actors = {dict(labels)["actor"] for name, labels in samples(text) if name == "ultra_actor_queued"}
    assert {"coordinator", "good"} <= actors <= {"coordinator", "good", "unregistered"}


@on_every_loop
async def test_runs_calls_tokens_and_cost_are_counted() -> None:
    orchestrator = orchestrator_of(
        good=FakeModel(ANSWER), bad=FakeModel(failures=[ModelError("no", kind="auth", retryable=False)] * 9)
    )
    orchestrator.add_ensemble("council", models=["good", "bad"])
    async with orchestrator:
        await orchestrator.ensemble("council").process_responses("Q")
        await orchestrator.process_responses("Q", models=["good"])  # from the cache
        with pytest.raises(QuorumNotReached):
            await orchestrator.process_responses("Q", models=["bad"], strategy="vote")
        text = text_of(orchestrator)

    assert value(text, "ultra_runs_total", ensemble="council", strategy="synthesize", status="degraded") == 1
    assert value(text, "ultra_runs_total", ensemble="", strategy="synthesize", status="success") == 1
    assert value(text, "ultra_runs_total", ensemble="", strategy="vote", status="failed") == 1
    assert value(text, "ultra_runs_running") == 0
    assert value(text, "ultra_model_requests_total", model="good", outcome="success") == 2
    assert value(text, "ultra_model_cache_total", model="good", outcome="hit") == 1
    assert value(text, "ultra_model_tokens_total", model="good", type="input") == 2
    assert value(text, "ultra_model_cost_dollars_total", model="good") == 3
    assert value(text, "ultra_model_errors_total", model="bad", kind="auth") == 2
    assert value(text, "ultra_model_response_seconds_count", model="good", stage="initial") == 1
    assert value(text, "ultra_model_health", model="bad", state="down") == 1
    assert value(text, "ultra_model_circuit", model="good", state="closed") == 1
    assert value(text, "ultra_actor_queued", actor="good") == 0
    assert value(text, "ultra_dead_letters_total") == 0


async def test_first_tokens_of_streams_are_counted() -> None:
    orchestrator = orchestrator_of(good=FakeModel("Paris is the capital."))
    async with orchestrator, orchestrator.stream_responses("Q") as run:
        await run.result()
    text = text_of(orchestrator)
    assert value(text, "ultra_model_first_token_seconds_count", model="good", stage="initial") == 1


async def test_names_and_formats_are_those_of_prometheus() -> None:
    orchestrator = orchestrator_of(good=FakeModel(ANSWER), bad=FakeModel(failures=[ModelError("no")] * 9))
    async with orchestrator:
        await orchestrator.process_responses("Q")
        registry = CollectorRegistry()
        registry.register(prometheus_collector(orchestrator))
        families = list(registry.collect())
        modern = openmetrics.generate_latest(registry).decode()  # type: ignore[no-untyped-call]

    assert len(list(parse_openmetrics(modern))) == len(families)  # type: ignore[no-untyped-call]
    named = {f"{family.name}_total" if family.type == "counter" else family.name for family in families}
    assert named == METRIC_NAMES
    for family in families:
        assert NAME.fullmatch(family.name)
        assert family.documentation
        for sample in family.samples:
            assert set(sample.labels) <= {
                *("model", "ensemble", "strategy", "stage", "status", "outcome"),
                *("type", "kind", "state", "actor", "le"),
            }


async def test_it_can_be_asked_before_and_after_the_actors_and_from_another_thread() -> None:
    orchestrator = orchestrator_of(good=FakeModel(ANSWER))
    before = text_of(orchestrator)
    assert value(before, "ultra_model_attempts_total", model="good") == 0
    assert "ultra_actor_queued{" not in before
    await orchestrator.process_responses("Q")
    texts: list[str] = []
    thread = threading.Thread(target=lambda: texts.append(text_of(orchestrator)))
    thread.start()
    thread.join()
    assert value(texts[0], "ultra_model_attempts_total", model="good") == 1


def test_a_histogram_counts_each_value_in_one_bucket() -> None:
    histogram = Histogram((1.0, 2.0))
    for number in (0.5, 1.0, 1.5, 2.0, 9.0):
        histogram.add(number)
    counts = histogram.snapshot()
    assert (counts.counts, counts.total, counts.count) == ((2, 2, 1), 14.0, 5)


def test_stages_of_anybodys_text_are_bounded() -> None:
    recorder = MetricsRecorder()
    for number in range(10 * STAGES):
        recorder.answered(1.0, None, f"stage {number}")
    assert len(recorder.stages) == STAGES + 1
    assert sum(times.response.snapshot().count for times in recorder.stages.values()) == 10 * STAGES


def test_names_and_scopes_of_runs_are_bounded() -> None:
    metrics = RunMetrics()
    outcome = RunOutcome(status="success", seconds=1.0)
    for number in range(2 * LABELS):
        metrics.started()
        metrics.ended("vote", RunOptions(name=f"n{number}", scope=f"s{number}"), outcome, 1, 0.5)
    spending = metrics.spending()
    assert len(metrics.counts()) == len(spending) == LABELS + 1
    assert sum(each.tokens for each in spending.values()) == 2 * LABELS
    assert sum(each.ended["success"] for each in metrics.counts()) == 2 * LABELS
    assert metrics.running == 0


async def test_no_text_of_a_user_or_provider_is_in_the_metrics() -> None:
    words: Mapping[str, str] = {"prompt": "sesame", "error": "of-the-provider"}
    orchestrator = orchestrator_of(bad=FakeModel(failures=[ModelError(words["error"], kind="server")] * 9))
    async with orchestrator:
        with pytest.raises(QuorumNotReached):
            await orchestrator.process_responses(words["prompt"])
        text = text_of(orchestrator)
    assert not any(word in text for word in words.values())
