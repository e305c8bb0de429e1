"""Traces and metrics by OpenTelemetry, in the names of its semantic conventions for generative AI.

These are still in development. The names are those of the conventions' release 1.42, which
`opentelemetry-semantic-conventions` has; `tests/telemetry/test_otel.py` pins them.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ultra._support.outgoing import outgoing_headers
from ultra.errors import MissingExtra
from ultra.messages.results import Completion
from ultra.telemetry.genai_content import input_messages, output_messages, system_instructions

try:
    from opentelemetry import context as otel_context
    from opentelemetry import metrics, trace
    from opentelemetry.trace import SpanKind, StatusCode
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError:
    raise MissingExtra("telemetry by OpenTelemetry", "otel") from None

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextvars import Context

    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider

    from ultra.messages.observers import (
        CallEnded,
        CallOutcome,
        CallStart,
        RunEnded,
        RunOutcome,
        RunStart,
    )
    from ultra.messages.request import ModelRequest
    from ultra.messages.results import OrchestrationResult

__all__ = ["OpenTelemetry"]

_PROVIDERS: Final[Mapping[str, str]] = {
    "azure": "azure.ai.openai",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "xai": "x_ai",
}
"""The conventions' names of providers, where they are not Ultra's."""

_UNKNOWN: Final = "unknown"

_CAPTURE: Final = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
_CAPTURED: Final = frozenset({"true", "span_only", "span_and_event"})

_SECONDS: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_TOKENS: Final = tuple(4**power for power in range(14))
"""The bounds of buckets that the conventions advise."""

_W3C: Final = TraceContextTextMapPropagator()


class OpenTelemetry:
    """Tells OpenTelemetry of runs and calls: ``MultiLLMOrchestrator(telemetry=OpenTelemetry())``.

    A run is a span ``invoke_workflow NAME`` below the caller's current span. Each call of a model is a span
    ``chat MODEL`` below that of its run, with all attempts; it is the current span while the client runs, and
    providers get it as the header ``traceparent``. An answer from the cache is no call. Metrics are
    ``gen_ai.client.operation.duration``, ``gen_ai.client.token.usage``,
    ``gen_ai.client.operation.time_to_first_chunk`` and ``gen_ai.workflow.duration``. Tokens that Ultra has
    estimated are in no metric.

    Args:
        tracer_provider, meter_provider: None: those that the program has set.
        content: whether spans have the messages and answers. None: as the environment says, in
            ``OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT``, and by default not.
        propagate: whether providers get ``traceparent``.
        export: send to a collector, as the variables ``OTEL_…`` say, unless the program has set providers of
            its own. What waits is sent when the process ends.

    Raises:
        MissingExtra: `export`, and the exporter is not installed.
    """

    def __init__(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        content: bool | None = None,
        propagate: bool = True,
        export: bool = False,
    ) -> None:
        if export and tracer_provider is None and meter_provider is None:
            from ultra.telemetry.otel_export import exporting_providers  # noqa: PLC0415 - needs the SDK

            tracer_provider, meter_provider = exporting_providers()
        self._tracer = trace.get_tracer("ultra", tracer_provider=tracer_provider)
        captured = os.environ.get(_CAPTURE, "").strip().lower() in _CAPTURED
        self._content = captured if content is None else content
        self._propagate = propagate
        meter = metrics.get_meter("ultra", meter_provider=meter_provider)

        def histogram(name: str, unit: str, text: str, bounds: tuple[float, ...] = _SECONDS) -> Any:  # noqa: ANN401
            return meter.create_histogram(
                name, unit=unit, description=text, explicit_bucket_boundaries_advisory=bounds
            )

        self._duration = histogram("gen_ai.client.operation.duration", "s", "Time of a call of a model")
        self._first = histogram(
            "gen_ai.client.operation.time_to_first_chunk", "s", "Time to the first text of a stream"
        )
        self._workflow = histogram("gen_ai.workflow.duration", "s", "Time of a run")
        self._tokens = histogram("gen_ai.client.token.usage", "{token}", "Tokens of a call", _TOKENS)

    @contextmanager
    def received(self, headers: Mapping[str, str]) -> Iterator[None]:
        """Let the trace that ``traceparent`` names be the current one in the block, unless there is one."""
        if "traceparent" not in headers or trace.get_current_span().get_span_context().is_valid:
            yield
            return
        token = otel_context.attach(_W3C.extract(headers))
        try:
            yield
        finally:
            otel_context.detach(token)

    # --- runs ------------------------------------------------------------------------------------------

    def run_started(self, run: RunStart, context: Context) -> RunEnded:
        """Begin the span of a run, below the current span of its caller."""
        name = run.name or run.strategy
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": "invoke_workflow",
            "gen_ai.workflow.name": name,
            "ultra.run.id": run.run_id,
            "ultra.strategy": run.strategy,
            "ultra.models": run.models,
        }
        span = self._begin(f"invoke_workflow {name}", SpanKind.INTERNAL, attributes, context)
        if self._content and span.is_recording():
            span.set_attributes(_asked(run.request))

        def ended(outcome: RunOutcome) -> None:
            failed = {} if outcome.error is None else {"error.type": outcome.error}
            span.set_attributes({"ultra.status": outcome.status, **failed})
            if outcome.result is not None and span.is_recording():
                self._describe(span, outcome.result)
            if outcome.status == "failed":
                span.set_status(StatusCode.ERROR)
            self._workflow.record(
                outcome.seconds,
                {"gen_ai.workflow.name": name, **failed},
                context=trace.set_span_in_context(span),
            )
            span.end()

        return ended

    def _describe(self, span: Span, result: OrchestrationResult) -> None:
        failed = dict.fromkeys(failure.model_name for failure in result.failures)
        known = {
            "ultra.synthesis.source": result.synthesis_source,
            "ultra.confidence": result.confidence,
            "ultra.cost": result.cost,
            "ultra.failed_models": tuple(failed) or None,
        }
        span.set_attributes(_without_none(known))
        for step in result.steps:
            for response in step.responses:
                if response.quality is not None:
                    score = {
                        "gen_ai.evaluation.name": result.quality_basis or "quality",
                        "gen_ai.evaluation.score.value": response.quality,
                        "ultra.model": response.model_name,
                        "ultra.stage": step.name,
                    }
                    span.add_event("gen_ai.evaluation.result", score)
        if self._content and result.final_synthesis is not None:
            final = result.final_synthesis
            answer = Completion(final.content, finish_reason=final.finish_reason, tool_calls=final.tool_calls)
            span.set_attribute("gen_ai.output.messages", output_messages(answer))

    # --- calls -----------------------------------------------------------------------------------------

    def call_started(self, call: CallStart, context: Context) -> CallEnded:
        """Begin the span of a call, below that of its run; the client sees it as the current one."""
        provider = call.provider or _UNKNOWN
        model = call.model or call.model_name
        shared = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": _PROVIDERS.get(provider, provider),
            "gen_ai.request.model": model,
        }
        attributes = {
            **shared,
            **_settings(call.request),
            **_without_none({"ultra.run.id": call.run_id}),
            "ultra.model": call.model_name,
            "ultra.stage": call.stage,
        }
        span = self._begin(f"chat {model}", SpanKind.CLIENT, attributes, context)
        if self._content and span.is_recording():
            span.set_attributes(_asked(call.request))
        if self._propagate:
            headers: dict[str, str] = {}
            _W3C.inject(headers, context=trace.set_span_in_context(span))
            context.run(outgoing_headers.set, headers)

        return partial(self._end_call, span, shared)

    def _end_call(self, span: Span, shared: Mapping[str, Any], outcome: CallOutcome) -> None:
        failed = {} if outcome.error is None else {"error.type": outcome.error}
        completion = outcome.completion
        answered = _without_none({"gen_ai.response.model": None if completion is None else completion.model})
        span.set_attributes({**failed, **answered, **_used(outcome)})
        if completion is not None and span.is_recording():
            span.set_attributes(_answered(completion))
            if self._content:
                span.set_attribute("gen_ai.output.messages", output_messages(completion))
        if outcome.status == "failed":
            span.set_status(StatusCode.ERROR)
        here = trace.set_span_in_context(span)  # so that a point can name its trace as an example
        labels, usage = {**shared, **answered}, outcome.usage
        self._duration.record(outcome.seconds, {**labels, **failed}, context=here)
        if outcome.first_text is not None:
            self._first.record(outcome.first_text, labels, context=here)
        if usage is not None and not usage.estimated:
            for kind, count in (("input", usage.input), ("output", usage.output)):
                if count is not None:
                    self._tokens.record(count, {**labels, "gen_ai.token.type": kind}, context=here)
        span.end()

    def _begin(self, name: str, kind: SpanKind, attributes: Mapping[str, Any], context: Context) -> Span:
        parent = context.run(otel_context.get_current)
        span = self._tracer.start_span(name, parent, kind, attributes)
        context.run(otel_context.attach, trace.set_span_in_context(span, parent))
        return span


def _settings(request: ModelRequest) -> dict[str, Any]:
    options = request.options
    return _without_none(
        {
            "gen_ai.request.temperature": options.temperature,
            "gen_ai.request.max_tokens": options.max_tokens,
            "gen_ai.request.top_p": options.top_p,
            "gen_ai.request.seed": options.seed,
            "gen_ai.output.type": None if request.output is None else "json",
        }
    )


def _used(outcome: CallOutcome) -> dict[str, Any]:
    known: dict[str, Any] = {
        "gen_ai.response.time_to_first_chunk": outcome.first_text,
        "ultra.attempts": outcome.attempts,
        "ultra.cost": outcome.cost,
        "ultra.status": outcome.status,
    }
    if outcome.usage is not None:
        known |= {
            "gen_ai.usage.input_tokens": outcome.usage.input,
            "gen_ai.usage.output_tokens": outcome.usage.output,
            "gen_ai.usage.cache_read.input_tokens": outcome.usage.cached,
            "gen_ai.usage.cache_creation.input_tokens": outcome.usage.written,
            "gen_ai.usage.reasoning.output_tokens": outcome.usage.reasoning,
            "ultra.usage.estimated": outcome.usage.estimated,
        }
    return _without_none(known)


def _answered(completion: Completion) -> dict[str, Any]:
    reason = completion.finish_reason
    return _without_none(
        {
            "gen_ai.response.id": completion.request_id,
            "gen_ai.response.finish_reasons": None if reason is None else (reason,),
        }
    )


def _asked(request: ModelRequest) -> dict[str, Any]:
    return {
        "gen_ai.input.messages": input_messages(request.messages),
        **_without_none({"gen_ai.system_instructions": system_instructions(request.messages)}),
    }


def _without_none(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}
