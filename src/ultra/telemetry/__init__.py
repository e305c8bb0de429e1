"""Traces and metrics: OpenTelemetry (extra ``otel``) and Prometheus (extra ``prometheus``)."""

from typing import TYPE_CHECKING

from ultra._support.lazy import lazy_names

if TYPE_CHECKING:
    from ultra.messages.observers import CallOutcome, CallStart, Observer, RunOutcome, RunStart
    from ultra.telemetry.otel import OpenTelemetry
    from ultra.telemetry.prometheus import prometheus_collector

__all__ = [
    "CallOutcome",
    "CallStart",
    "Observer",
    "OpenTelemetry",
    "RunOutcome",
    "RunStart",
    "prometheus_collector",
]

_OBSERVERS = "ultra.messages.observers"

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        **dict.fromkeys(("CallOutcome", "CallStart", "Observer", "RunOutcome", "RunStart"), _OBSERVERS),
        "OpenTelemetry": "ultra.telemetry.otel",
        "prometheus_collector": "ultra.telemetry.prometheus",
    },
)
