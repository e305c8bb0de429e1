"""`GET /metrics`: what Prometheus reads of a service, of its models and of this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ultra.errors import MissingExtra
from ultra.service.http import Reply

try:
    from prometheus_client import CollectorRegistry, ProcessCollector
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
    from prometheus_client.exposition import choose_encoder
    from prometheus_client.registry import Collector

    from ultra.telemetry.prometheus import add_histogram, prometheus_collector
except ImportError:
    raise MissingExtra("metrics for Prometheus", "serve") from None

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prometheus_client.core import Metric

    from ultra.service.core import Service
    from ultra.service.http import Request

__all__ = ["SERVICE_METRIC_NAMES", "show_metrics"]

SERVICE_METRIC_NAMES: Final[frozenset[str]] = frozenset(
    {
        "ultra_key_cost_dollars_total",
        "ultra_key_runs_total",
        "ultra_key_tokens_total",
        "ultra_service_draining",
        "ultra_service_request_seconds",
        "ultra_service_requests_active",
        "ultra_service_requests_total",
    }
)
"""The names of the metrics that a service has beside those of its orchestrator."""


def show_metrics(service: Service, request: Request) -> Reply:
    """Return all numbers at this moment, in the format that the request accepts."""
    registry = CollectorRegistry()
    registry.register(prometheus_collector(service.orchestrator))
    registry.register(_ServiceCollector(service))
    ProcessCollector(registry=registry)
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    return Reply(headers={"content-type": content_type}, body=encode(registry))


class _ServiceCollector(Collector):
    def __init__(self, service: Service) -> None:
        self._service = service

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        counters = self._service.counters
        labels = ["route", "status", "key"]
        requests = CounterMetricFamily("ultra_service_requests", "Requests that have ended", labels=labels)
        for (route, status, key), count in counters.requests().items():
            requests.add_metric([route, str(status), key], count)
        seconds = HistogramMetricFamily(
            "ultra_service_request_seconds", "Seconds to the end of the reply", labels=["route"]
        )
        for route, counts in counters.seconds().items():
            add_histogram(seconds, (route,), counts)
        yield from (requests, seconds)
        text = "Requests that are answered now"
        yield GaugeMetricFamily("ultra_service_requests_active", text, value=counters.active)
        text = "1 once the service takes no more requests"
        yield GaugeMetricFamily("ultra_service_draining", text, value=self._service.is_draining)
        yield from self._of_keys()

    def _of_keys(self) -> Iterator[Metric]:
        runs = CounterMetricFamily("ultra_key_runs", "Runs by the key that asked", labels=["key"])
        tokens = CounterMetricFamily("ultra_key_tokens", "Tokens of these runs", labels=["key"])
        cost = CounterMetricFamily("ultra_key_cost_dollars", "Dollars of these runs", labels=["key"])
        # The scope of a run of a service is the name of the key.
        for key, spent in self._service.orchestrator.get_measurements().spending.items():
            runs.add_metric([key], spent.runs)
            tokens.add_metric([key], spent.tokens)
            cost.add_metric([key], spent.cost)
        yield from (runs, tokens, cost)
