"""What is counted, for failures as for successes."""

from __future__ import annotations

from random import Random
from statistics import fmean

import msgspec
import pytest

from ultra.actors.model.metrics import WINDOW, MetricsRecorder
from ultra.messages.results import ModelMetrics, ModelResponse, Usage


def test_nothing_has_happened_yet() -> None:
    metrics = MetricsRecorder().snapshot()
    assert (metrics.requests, metrics.success_rate, metrics.average_response_time) == (0, None, None)
    assert (metrics.average_quality, metrics.response_times) == (None, [])


def test_requests_are_those_that_have_ended_and_cancelled_ones_are_no_failures() -> None:
    recorder = MetricsRecorder()
    recorder.successes, recorder.failures, recorder.cancelled = 3, 1, 4
    metrics = recorder.snapshot()
    assert (metrics.requests, metrics.success_rate) == (8, 0.75)


def test_averages_are_those_of_the_windows() -> None:
    recorder = MetricsRecorder()
    for seconds in (1.0, 2.0, 6.0):
        recorder.answered(seconds, None if seconds == 2.0 else seconds / 2)
        recorder.scored(seconds / 10)
    metrics = recorder.snapshot()
    assert metrics.response_times == [1.0, 2.0, 6.0]
    assert metrics.average_response_time == pytest.approx(3.0)
    assert metrics.times_to_first_token == [0.5, 3.0]
    assert metrics.average_quality == pytest.approx(0.3)


def test_windows_keep_the_newest_values_and_no_more() -> None:
    recorder = MetricsRecorder()
    for number in range(3 * WINDOW):
        recorder.answered(float(number), float(number))
        recorder.scored(0.5)
    metrics = recorder.snapshot()
    assert metrics.response_times == [float(number) for number in range(2 * WINDOW, 3 * WINDOW)]
    assert len(metrics.times_to_first_token) == len(metrics.quality_scores) == WINDOW


def test_usage_adds_up_and_one_estimate_marks_the_sum() -> None:
    recorder = MetricsRecorder()
    recorder.used(Usage(input=10, output=5), 0.25)
    recorder.used(None, None)
    recorder.used(Usage(input=None, output=2), 0.5)
    assert not recorder.snapshot().tokens_estimated
    recorder.used(Usage(input=1, output=1, estimated=True), None)
    metrics = recorder.snapshot()
    assert (metrics.input_tokens, metrics.output_tokens, metrics.cost) == (11, 8, 0.75)
    assert metrics.tokens_estimated


def test_a_snapshot_does_not_change_any_more_and_travels() -> None:
    recorder = MetricsRecorder()
    recorder.answered(1.0, None)
    before = recorder.snapshot()
    recorder.answered(2.0, None)
    assert before.response_times == [1.0]
    assert msgspec.json.decode(msgspec.json.encode(before), type=ModelMetrics) == before
    assert before["response_times"] == [1.0]


@pytest.mark.parametrize("count", [1, WINDOW, WINDOW + 1, 2 * WINDOW - 1, 2 * WINDOW, 5 * WINDOW + 17])
def test_an_average_is_that_of_the_window_that_is_shown(count: int) -> None:
    recorder, random = MetricsRecorder(), Random(count)
    for _ in range(count):
        recorder.answered(random.expovariate(1), None)
        recorder.scored(random.random())
    metrics = recorder.snapshot()
    assert metrics.average_response_time == pytest.approx(fmean(metrics.response_times), rel=1e-12)
    assert metrics.average_quality == pytest.approx(fmean(metrics.quality_scores), rel=1e-12)


def test_the_metrics_of_a_run_have_the_times_of_its_own_calls() -> None:
    recorder = MetricsRecorder()
    recorder.answered(9.0, 9.0)
    run = [
        ModelResponse(
            model_name="one",
            stage="initial",
            content="a",
            response_time=1.0,
            time_to_first_token=0.25,
            quality=0.5,
        ),
        ModelResponse(model_name="one", stage="initial", content="b", response_time=2.0),
        ModelResponse(
            model_name="one", stage="initial", content="c", response_time=0.0, cached=True, quality=0.75
        ),
    ]
    metrics = recorder.of_run(run)
    assert metrics.response_times == [1.0, 2.0]
    assert metrics.times_to_first_token == [0.25]
    assert metrics.quality_scores == [0.5, 0.75]
    assert metrics.average_response_time == 9.0


@pytest.mark.parametrize(
    ("count", "middle", "high"),
    [(1, 1.0, 1.0), (2, 1.0, 2.0), (3, 2.0, 3.0), (20, 10.0, 19.0), (21, 11.0, 20.0)],
)
def test_percentiles_are_values_that_were_seen(count: int, middle: float, high: float) -> None:
    recorder = MetricsRecorder()
    for seconds in Random(count).sample(range(1, count + 1), count):
        recorder.answered(float(seconds), None)
    metrics = recorder.snapshot()
    assert (metrics.response_time_p50, metrics.response_time_p95) == (middle, high)
