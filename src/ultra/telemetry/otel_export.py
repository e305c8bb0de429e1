"""Providers of OpenTelemetry that send to a collector, by OTLP over HTTP, as the environment says."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ultra.errors import MissingExtra

try:
    from opentelemetry import metrics, trace
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
except ImportError:
    raise MissingExtra("to export telemetry", "otel") from None

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider as AnyMeterProvider
    from opentelemetry.trace import TracerProvider as AnyTracerProvider

__all__ = ["exporting_providers"]


def exporting_providers() -> tuple[AnyTracerProvider | None, AnyMeterProvider | None]:
    """Return providers that export; None where the program, or an agent, has set one of its own.

    ``OTEL_EXPORTER_OTLP_ENDPOINT`` and the other variables of OpenTelemetry say where, and how often. The
    service is called ``ultra``, unless ``OTEL_SERVICE_NAME`` names it.
    """
    named = os.environ.get("OTEL_SERVICE_NAME") or SERVICE_NAME in os.environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )
    resource = Resource.create({} if named else {SERVICE_NAME: "ultra"})
    tracing: AnyTracerProvider | None = None
    measuring: AnyMeterProvider | None = None
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        provider = TracerProvider(resource=resource)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        tracing = provider
    if type(metrics.get_meter_provider()).__name__ == "_ProxyMeterProvider":
        measuring = MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())], resource)
    return tracing, measuring
