"""Metrics for Prometheus: read from snapshots when they are asked for, so that calls pay for nothing.

Label values are names of the program's own: models, ensembles, strategies, stages, kinds of errors. Each is
bounded in number; no text of a user or a provider is one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from ultra.errors import MissingExtra
from ultra.supervisor.snapshot import SupervisorSnapshot

try:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
    from prometheus_client.registry import Collector
except ImportError:
    raise MissingExtra("metrics for Prometheus", "prometheus") from None

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prometheus_client.core import Metric

    from ultra._support.histogram import HistogramCounts
    from ultra.actors.runtime.status import ActorSnapshot
    from ultra.orchestrator.measurements import Measurements, ModelMeasurements
    from ultra.orchestrator.orchestrator import MultiLLMOrchestrator
    from ultra.orchestrator.run_metrics import RunCounts

__all__ = ["METRIC_NAMES", "OrchestratorCollector", "add_histogram", "prometheus_collector"]

_COUNTERS: Final = {
    "requests": "Requests to the model that have ended",
    "attempts": "Calls of the client of the model",
    "retries": "Attempts after the first one of their request",
    "joined": "Requests that joined one under way",
    "hedges": "Calls that hedge a slow one",
    "hedges_won": "Hedges that answered first",
}
_CIRCUIT: Final = ("closed", "half_open", "open")
_OTHERS: Final = "unregistered"
_HEALTH: Final = ("up", "degraded", "down")

METRIC_NAMES: Final[frozenset[str]] = frozenset(
    {
        "ultra_actor_in_flight",
        "ultra_actor_queued",
        "ultra_actor_restarts_total",
        "ultra_dead_letters_total",
        "ultra_model_attempts_total",
        "ultra_model_cache_total",
        "ultra_model_circuit",
        "ultra_model_circuit_opened_total",
        "ultra_model_cost_dollars_total",
        "ultra_model_errors_total",
        "ultra_model_first_token_seconds",
        "ultra_model_health",
        "ultra_model_hedges_total",
        "ultra_model_hedges_won_total",
        "ultra_model_in_flight",
        "ultra_model_joined_total",
        "ultra_model_requests_total",
        "ultra_model_response_seconds",
        "ultra_model_retries_total",
        "ultra_model_tokens_total",
        "ultra_model_waiting",
        "ultra_run_seconds",
        "ultra_runs_running",
        "ultra_runs_total",
    }
)
"""The names of all metrics of an orchestrator; of histograms without ``_bucket``, ``_sum``, ``_count``."""


def prometheus_collector(orchestrator: MultiLLMOrchestrator) -> OrchestratorCollector:
    """Return what gives the metrics of an orchestrator to a registry of prometheus_client.

    It may be asked from any thread, such as that of ``start_http_server``. While the orchestrator is not
    entered, metrics of actors, circuits and health are left out. ::

        from prometheus_client import REGISTRY, start_http_server

        REGISTRY.register(prometheus_collector(orchestrator))
        start_http_server(9464)
    """
    return OrchestratorCollector(orchestrator)


class OrchestratorCollector(Collector):
    """Collects the metrics of one orchestrator."""

    def __init__(self, orchestrator: MultiLLMOrchestrator) -> None:
        self._orchestrator = orchestrator

    def describe(self) -> Iterable[Metric]:
        """Return nothing: to register it reads no numbers."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics at this moment."""
        measured = self._orchestrator.get_measurements()
        yield from _of_runs(measured)
        yield from _of_models(measured)
        yield from _of_times(measured)
        yield from _of_state(measured)
        yield from _of_actors(measured)


def add_histogram(family: HistogramMetricFamily, labels: Iterable[str], counts: HistogramCounts) -> None:
    """Add a histogram to a family, with the cumulated buckets that Prometheus wants."""
    total, buckets = 0, []
    bounds = [*map(repr, counts.bounds), "+Inf"]
    for bound, count in zip(bounds, counts.counts, strict=True):
        total += count
        buckets.append((bound, total))
    family.add_metric([*labels], buckets, counts.total)


def _of_runs(measured: Measurements) -> Iterator[Metric]:
    labels = ("ensemble", "strategy")
    runs = CounterMetricFamily("ultra_runs", "Runs that have ended", labels=[*labels, "status"])
    seconds = HistogramMetricFamily("ultra_run_seconds", "Seconds of a run", labels=labels)
    each: RunCounts
    for each in measured.runs:
        for status, count in each.ended.items():
            runs.add_metric([each.name, each.strategy, status], count)
        add_histogram(seconds, (each.name, each.strategy), each.seconds)
    running = GaugeMetricFamily("ultra_runs_running", "Runs under way", value=measured.running)
    yield from (runs, seconds, running)


def _of_models(measured: Measurements) -> Iterator[Metric]:
    counters = {
        name: CounterMetricFamily(f"ultra_model_{name}", text, labels=["model"])
        for name, text in _COUNTERS.items()
        if name != "requests"
    }
    ended = CounterMetricFamily("ultra_model_requests", _COUNTERS["requests"], labels=["model", "outcome"])
    cache = CounterMetricFamily("ultra_model_cache", "Lookups in the cache", labels=["model", "outcome"])
    tokens = CounterMetricFamily("ultra_model_tokens", "Tokens of all calls", labels=["model", "type"])
    cost = CounterMetricFamily("ultra_model_cost_dollars", "Dollars of all calls", labels=["model"])
    errors = CounterMetricFamily("ultra_model_errors", "Failed requests by kind", labels=["model", "kind"])
    for name, model in measured.models.items():
        numbers = model.metrics
        for counter, family in counters.items():
            family.add_metric([name], getattr(numbers, counter))
        ended.add_metric([name, "success"], numbers.successes)
        ended.add_metric([name, "failed"], numbers.failures)
        ended.add_metric([name, "cancelled"], numbers.cancelled)
        cache.add_metric([name, "hit"], numbers.cache_hits)
        cache.add_metric([name, "miss"], numbers.cache_misses)
        tokens.add_metric([name, "input"], numbers.input_tokens)
        tokens.add_metric([name, "output"], numbers.output_tokens)
        if numbers.cost is not None:
            cost.add_metric([name], numbers.cost)
        for kind, count in model.errors.items():
            errors.add_metric([name, kind], count)
    yield from (*counters.values(), ended, cache, tokens, cost, errors)


def _of_times(measured: Measurements) -> Iterator[Metric]:
    labels = ("model", "stage")
    response = HistogramMetricFamily(
        "ultra_model_response_seconds", "Seconds to an answer, retries included", labels=labels
    )
    first = HistogramMetricFamily(
        "ultra_model_first_token_seconds", "Seconds to the first text of a streamed answer", labels=labels
    )
    for name, model in measured.models.items():
        for stage, times in model.stages.items():
            add_histogram(response, (name, stage), times.response)
            add_histogram(first, (name, stage), times.first_token)
    yield from (response, first)


def _of_state(measured: Measurements) -> Iterator[Metric]:
    labels = ["model", "state"]
    health = GaugeMetricFamily("ultra_model_health", "1 for the state that the model is in", labels=labels)
    circuit = GaugeMetricFamily("ultra_model_circuit", "1 for the state of its circuit", labels=labels)
    opened = CounterMetricFamily("ultra_model_circuit_opened", "How often it opened", labels=["model"])
    in_flight = GaugeMetricFamily("ultra_model_in_flight", "Calls under way", labels=["model"])
    waiting = GaugeMetricFamily("ultra_model_waiting", "Calls that wait for limits", labels=["model"])
    each: ModelMeasurements
    for name, each in measured.models.items():
        if each.health is None or each.circuit is None or each.limits is None:
            continue
        for state in _HEALTH:
            health.add_metric([name, state], each.health.status == state)
        for state in _CIRCUIT:
            circuit.add_metric([name, state], each.circuit.state == state)
        opened.add_metric([name], each.circuit.opened)
        in_flight.add_metric([name], each.limits.in_flight)
        waiting.add_metric([name], each.limits.waiting)
    yield from (health, circuit, opened, in_flight, waiting)


def _of_actors(measured: Measurements) -> Iterator[Metric]:
    labels = ["actor"]
    queued = GaugeMetricFamily("ultra_actor_queued", "Messages that wait in the inbox", labels=labels)
    in_flight = GaugeMetricFamily("ultra_actor_in_flight", "Messages that are handled now", labels=labels)
    restarts = CounterMetricFamily("ultra_actor_restarts", "Restarts after crashes", labels=labels)
    sums: dict[str, list[int]] = {}
    names = {quote(name, safe=" :@") for name in measured.models}
    for actor in _actors(measured.tree):
        # That of a model is called "actor", below a supervisor with the model's name.
        above = actor.path.split("/")[-2:-1]
        label = actor.name if actor.name != "actor" else above[0] if above and above[0] in names else _OTHERS
        # Actors of clients that were never registered come and go under names of their own.
        each = sums.setdefault(label, [0, 0, 0])
        each[:] = [each[0] + actor.queued, each[1] + actor.in_flight, each[2] + actor.restarts]
    for label, (waits, handled, restarted) in sums.items():
        queued.add_metric([label], waits)
        in_flight.add_metric([label], handled)
        restarts.add_metric([label], restarted)
    dead = CounterMetricFamily("ultra_dead_letters", "Messages that were not handled")
    if measured.tree is not None:
        dead.add_metric([], measured.dead_letters)
    yield from (queued, in_flight, restarts, dead)


def _actors(tree: SupervisorSnapshot | None) -> Iterator[ActorSnapshot]:
    for child in () if tree is None else tree.children:
        if isinstance(child, SupervisorSnapshot):
            yield from _actors(child)
        else:
            yield child
