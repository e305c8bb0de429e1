"""Spans and metrics of OpenTelemetry, as a program gets them from the SDK's exporters in memory."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio
import trio.testing
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from helpers.event_loops import on_every_loop
from ultra import ModelError, MultiLLMOrchestrator, QuorumNotReached, RetryPolicy
from ultra.clients import connect
from ultra.messages.results import Completion, Usage
from ultra.telemetry import OpenTelemetry
from ultra.testing import FakeModel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.sdk.trace import ReadableSpan

AT_ONCE = RetryPolicy(max_retries=1, initial=0)
ANSWER = Completion("Paris.", usage=Usage(7, 3), finish_reason="stop", model="m-2026", request_id="r1")


class Telemetry:
    """OpenTelemetry with exporters in memory."""

    def __init__(self, **settings: Any) -> None:
        self.exporter = InMemorySpanExporter()
        self.reader = InMemoryMetricReader()
        self.tracing = TracerProvider()
        self.tracing.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.metering = MeterProvider([self.reader])
        self.observer = OpenTelemetry(tracer_provider=self.tracing, meter_provider=self.metering, **settings)

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def named(self, start: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name.startswith(start)]

    def points(self) -> dict[str, list[Any]]:
        data = self.reader.get_metrics_data()
        assert data is not None
        return {
            metric.name: list(metric.data.data_points)
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    made = Telemetry()
    yield made
    made.tracing.shutdown()
    made.metering.shutdown()


def orchestrator_of(telemetry: Any, *models: object, **settings: Any) -> MultiLLMOrchestrator:
    given: dict[str, Any] = {"stages": ["initial"], "retry": AT_ONCE, "cache_enabled": False} | settings
    orchestrator = MultiLLMOrchestrator(telemetry=telemetry, **given)
    for number, model in enumerate(models):
        orchestrator.register_model(f"m{number}", model)
    return orchestrator


WHOLE = {"choices": [{"message": {"role": "assistant", "content": "Paris."}, "finish_reason": "stop"}]}
PIECE = {"choices": [{"delta": {"content": "Paris."}, "finish_reason": "stop"}]}


def client_at(seen: list[httpx.Headers]) -> object:
    """A client of an endpoint that answers every request, and keeps its headers."""

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers)
        if json.loads(request.content).get("stream"):
            body = f"data: {json.dumps(PIECE)}\n\ndata: [DONE]\n\n"
            return httpx.Response(200, text=body, headers={"content-type": "text/event-stream"})
        return httpx.Response(200, json=WHOLE)

    transport = httpx.MockTransport(answer)
    return connect("openai:gpt-4o-mini", api_key="sk-test-12345678", transport=transport)


def text_of(span: ReadableSpan) -> str:
    return str(span.to_json())


@on_every_loop
async def test_a_run_is_a_span_below_that_of_its_caller_and_each_call_one_below_it() -> None:
    telemetry = Telemetry()
    orchestrator = orchestrator_of(
        telemetry.observer, FakeModel(ANSWER), FakeModel(ANSWER), stages=["initial", "synthesis"]
    )
    tracer = telemetry.tracing.get_tracer("program")
    with tracer.start_as_current_span("caller") as caller:
        result = await orchestrator.process_responses("What is the capital?", name="council")

    [run] = telemetry.named("invoke_workflow")
    calls = telemetry.named("chat")
    assert run.name == "invoke_workflow council"
    assert run.kind is SpanKind.INTERNAL
    assert run.parent is not None
    assert run.context is not None
    assert run.parent.span_id == caller.get_span_context().span_id
    assert run.attributes is not None
    assert run.attributes["gen_ai.operation.name"] == "invoke_workflow"
    assert run.attributes["gen_ai.workflow.name"] == "council"
    assert run.attributes["ultra.run.id"] == result.run_id
    assert run.attributes["ultra.status"] == "success"
    assert len(calls) == 3
    for call in calls:
        assert call.kind is SpanKind.CLIENT
        assert call.parent is not None
        assert call.parent.span_id == run.context.span_id


async def test_a_call_has_the_names_of_the_conventions(telemetry: Telemetry) -> None:
    model: Any = FakeModel(ANSWER)
    model.provider, model.model = "gemini", "gemini-2.5-flash"
    orchestrator = orchestrator_of(telemetry.observer, model)
    await orchestrator.process_responses("Q", options={"temperature": 0.5, "max_tokens": 9})

    [call] = telemetry.named("chat")
    assert call.name == "chat gemini-2.5-flash"
    attributes = dict(call.attributes or {})
    assert attributes.pop("ultra.run.id")
    assert attributes.pop("gen_ai.response.time_to_first_chunk", None) is None
    assert attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "gcp.gemini",
        "gen_ai.request.model": "gemini-2.5-flash",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.max_tokens": 9,
        "gen_ai.response.model": "m-2026",
        "gen_ai.response.id": "r1",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 3,
        "ultra.usage.estimated": False,
        "ultra.model": "m0",
        "ultra.stage": "initial",
        "ultra.attempts": 1,
        "ultra.status": "success",
    }


async def test_metrics_have_the_names_and_units_of_the_conventions(telemetry: Telemetry) -> None:
    orchestrator = orchestrator_of(telemetry.observer, FakeModel(ANSWER))
    async with orchestrator.stream_responses("Q") as run:
        await run.result()

    points = telemetry.points()
    assert {
        "gen_ai.client.operation.duration",
        "gen_ai.client.operation.time_to_first_chunk",
        "gen_ai.client.token.usage",
        "gen_ai.workflow.duration",
    } == points.keys()
    sums = {p.attributes["gen_ai.token.type"]: p.sum for p in points["gen_ai.client.token.usage"]}
    assert sums == {"input": 7, "output": 3}
    [duration] = points["gen_ai.client.operation.duration"]
    assert duration.attributes["gen_ai.provider.name"]
    assert duration.attributes["gen_ai.operation.name"] == "chat"
    assert duration.count == 1


async def test_tokens_that_were_estimated_are_in_no_metric(telemetry: Telemetry) -> None:
    async def plain(prompt: str) -> str:
        await trio.lowlevel.checkpoint()
        return "Paris."

    await orchestrator_of(telemetry.observer, plain).process_responses("Q")
    assert "gen_ai.client.token.usage" not in telemetry.points()
    [call] = telemetry.named("chat")
    assert (call.attributes or {})["ultra.usage.estimated"] is True


async def test_a_failed_call_says_its_kind_and_never_the_words_of_the_provider(telemetry: Telemetry) -> None:
    failing = FakeModel(failures=[ModelError("the secret sk-12345678", kind="auth", retryable=False)])
    with pytest.raises(QuorumNotReached):
        await orchestrator_of(telemetry.observer, failing).process_responses("Q")

    [call], [run] = telemetry.named("chat"), telemetry.named("invoke_workflow")
    assert (call.attributes or {})["error.type"] == "auth"
    assert (run.attributes or {})["error.type"] == "QuorumNotReached"
    assert call.status.status_code is run.status.status_code is StatusCode.ERROR
    assert not any("sk-1234" in text_of(span) for span in telemetry.spans)
    [point] = telemetry.points()["gen_ai.client.operation.duration"]
    assert point.attributes["error.type"] == "auth"


async def test_an_answer_from_the_cache_is_no_call(telemetry: Telemetry) -> None:
    orchestrator = orchestrator_of(telemetry.observer, FakeModel(ANSWER), cache_enabled=True)
    async with orchestrator:
        await orchestrator.process_responses("Q")
        await orchestrator.process_responses("Q")
    assert len(telemetry.named("chat")) == 1
    assert len(telemetry.named("invoke_workflow")) == 2


async def test_a_run_that_is_left_ends_its_spans(
    telemetry: Telemetry, autojump_clock: trio.testing.MockClock
) -> None:
    orchestrator = orchestrator_of(telemetry.observer, FakeModel(ANSWER, seconds=100))
    with trio.move_on_after(3):
        await orchestrator.process_responses("Q")
    [call], [run] = telemetry.named("chat"), telemetry.named("invoke_workflow")
    assert (run.attributes or {})["ultra.status"] == "cancelled"
    assert (call.attributes or {})["ultra.status"] == "cancelled"
    assert run.status.status_code is StatusCode.UNSET


async def test_content_is_told_by_opt_in_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    silent, told = Telemetry(), Telemetry(content=True)
    for each in (silent, told):
        orchestrator = orchestrator_of(each.observer, FakeModel(ANSWER))
        await orchestrator.process_responses("Tell me a secret", system="Be brief")
    assert not any("secret" in text_of(span) or "Paris" in text_of(span) for span in silent.spans)
    [call] = told.named("chat")
    attributes = call.attributes or {}
    assert json.loads(str(attributes["gen_ai.input.messages"])) == [
        {"role": "user", "parts": [{"type": "text", "content": "Tell me a secret"}]}
    ]
    assert json.loads(str(attributes["gen_ai.system_instructions"])) == [
        {"type": "text", "content": "Be brief"}
    ]
    assert json.loads(str(attributes["gen_ai.output.messages"])) == [
        {"role": "assistant", "parts": [{"type": "text", "content": "Paris."}], "finish_reason": "stop"}
    ]
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "span_only")
    asked = Telemetry()
    await orchestrator_of(asked.observer, FakeModel(ANSWER)).process_responses("Tell me a secret")
    assert any("secret" in text_of(span) for span in asked.named("chat"))


@on_every_loop
async def test_a_client_sees_the_span_of_its_call_as_the_current_one() -> None:
    telemetry = Telemetry()
    seen: list[int] = []

    class Client:
        async def generate(self, prompt: str) -> str:
            seen.append(trace.get_current_span().get_span_context().span_id)
            return "Paris."

    def blocking(prompt: str) -> str:
        seen.append(trace.get_current_span().get_span_context().span_id)
        return "Paris."

    orchestrator = orchestrator_of(telemetry.observer, Client(), blocking)
    await orchestrator.process_responses("Q")
    spans = {span.context.span_id for span in telemetry.named("chat") if span.context is not None}
    assert set(seen) == spans
    assert len(spans) == 2
    assert not trace.get_current_span().get_span_context().is_valid


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
@on_every_loop
async def test_providers_get_the_trace_of_their_call(*, streamed: bool) -> None:
    telemetry = Telemetry()
    seen: list[httpx.Headers] = []
    orchestrator = orchestrator_of(telemetry.observer, client_at(seen))
    if streamed:
        async with orchestrator.stream_responses("Q") as run:
            await run.result()
    else:
        await orchestrator.process_responses("Q")

    [call] = telemetry.named("chat")
    assert call.context is not None
    [headers] = seen
    expected = f"00-{call.context.trace_id:032x}-{call.context.span_id:016x}-{call.context.trace_flags:02x}"
    assert headers["traceparent"] == expected


async def test_a_provider_gets_no_trace_where_that_is_off() -> None:
    telemetry = Telemetry(propagate=False)
    seen: list[httpx.Headers] = []
    await orchestrator_of(telemetry.observer, client_at(seen)).process_responses("Q")
    assert "traceparent" not in seen[0]


async def test_the_name_otel_means_the_providers_of_the_program() -> None:
    orchestrator = orchestrator_of("otel", FakeModel(ANSWER))
    result = await orchestrator.process_responses("Q")
    assert result.status == "success"
    assert orchestrator.observers


async def test_a_request_outside_of_a_run_is_a_call(telemetry: Telemetry) -> None:
    orchestrator = orchestrator_of(telemetry.observer, FakeModel(ANSWER))
    await orchestrator.get_model_response("m0", "Q")
    [call] = telemetry.spans
    assert call.name.startswith("chat")
    assert "ultra.run.id" not in (call.attributes or {})
