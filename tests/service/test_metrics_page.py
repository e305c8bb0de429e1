"""`/metrics`, the log of requests, and the traces that requests bring."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import structlog
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import LogCapture

from helpers.services import ask, chat, service_of
from ultra import MultiLLMOrchestrator
from ultra.config.serving import ServeConfig
from ultra.service.access import Caller
from ultra.service.core import Service
from ultra.service.metrics import SERVICE_METRIC_NAMES
from ultra.telemetry import OpenTelemetry
from ultra.telemetry.prometheus import METRIC_NAMES
from ultra.testing import FakeModel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ultra.service.http import Request


class Named:
    """Lets everybody in, under the name that the request gives."""

    needs_loopback = False

    async def authenticate(self, request: Request) -> Caller:
        return Caller(request.headers.get("x-name", ""))


def value(text: str, name: str, **labels: str) -> float:
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return sample.value
    raise AssertionError(f"no {name} {labels} in:\n{text}")


async def test_requests_and_what_they_cost_are_counted_by_key() -> None:
    service = service_of({"a": FakeModel("Paris."), "b": FakeModel("Paris.")}, access=Named())
    async with service.running():
        await ask(service, chat(), headers={"x-name": "alice"})
        await ask(service, chat(stream=True), headers={"x-name": "alice"})
        await ask(service, chat("nobody"), headers={"x-name": "bob"})
        await ask(service, b"", "/secret/path", method="GET")
        answer = await ask(service, b"", "/metrics", method="GET")
    text = answer.body.decode()
    chats = {"route": "/v1/chat/completions"}
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain")
    assert value(text, "ultra_service_requests_total", **chats, status="200", key="alice") == 2
    assert value(text, "ultra_service_requests_total", **chats, status="404", key="bob") == 1
    assert value(text, "ultra_service_requests_total", route="other", status="404", key="") == 1
    assert value(text, "ultra_key_runs_total", key="alice") == 2
    assert value(text, "ultra_service_requests_active") == 1  # this one
    assert value(text, "ultra_runs_total", ensemble="council", strategy="synthesize", status="success") == 2
    assert "/secret/path" not in text


async def test_all_metrics_that_are_documented_are_there_in_both_formats() -> None:
    service = service_of({"a": FakeModel("Paris.")})
    openmetrics = {"accept": "application/openmetrics-text; version=1.0.0"}
    async with service.running():
        answer = await ask(service, b"", "/metrics", method="GET")
        modern = await ask(service, b"", "/metrics", method="GET", headers=openmetrics)
    named = set()
    for family in text_string_to_metric_families(answer.body.decode()):
        named.add(f"{family.name}_total" if family.type == "counter" else family.name)
    assert named >= METRIC_NAMES | SERVICE_METRIC_NAMES
    assert "process_resident_memory_bytes" in named
    assert modern.headers["content-type"].startswith("application/openmetrics-text")
    assert modern.body.endswith(b"# EOF\n")


async def test_metrics_are_for_those_who_may_ask() -> None:
    service = service_of({"a": FakeModel()})
    async with service.running():
        answer = await ask(service, b"", "/metrics", method="GET", peer="192.0.2.1")
    assert answer.status == 403


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    """All log lines, with what is bound to their context."""
    capture = LogCapture()
    before = structlog.get_config()
    structlog.configure(processors=[structlog.contextvars.merge_contextvars, capture])
    yield capture.entries
    structlog.configure(**before)
    structlog.reset_defaults()


async def test_lines_of_a_request_and_its_run_have_its_name_and_its_key(lines: list[Any]) -> None:
    service = service_of({"a": FakeModel("Paris.")}, access=Named())
    async with service.running():
        await ask(service, chat(text="my question"), headers={"x-name": "alice", "x-request-id": "r-1"})
        await ask(service, b"", "/v1/models", method="GET", headers={"x-request-id": "r-2"})
    first, second = [line for line in lines if line["event"] == "request ended"]
    [run] = [line for line in lines if line["event"] == "run ended"]
    assert (first["request_id"], first["key"], first["status"]) == ("r-1", "alice", 200)
    assert first["route"] == "/v1/chat/completions"
    assert (run["request_id"], run["key"]) == ("r-1", "alice")
    assert run["run_id"]
    assert second["request_id"] == "r-2"
    assert "key" not in second
    assert not any("my question" in str(line) or "Paris" in str(line) for line in lines)


async def test_a_run_belongs_to_the_trace_of_its_request() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    orchestrator = MultiLLMOrchestrator(telemetry=OpenTelemetry(tracer_provider=provider))
    orchestrator.register_model("a", FakeModel("Paris."))
    orchestrator.add_ensemble("council", stages=["initial", "synthesis"])
    service = Service(orchestrator, ServeConfig())
    given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with service.running():
        await ask(service, chat(), headers={"traceparent": given})
        assert not trace.get_current_span().get_span_context().is_valid
        await ask(service, chat(text="another"), headers={"traceparent": "nonsense"})
    provider.shutdown()
    first, second = [span for span in exporter.get_finished_spans() if span.name.startswith("invoke")]
    assert first.name == "invoke_workflow council"
    assert first.parent is not None
    assert f"{first.parent.trace_id:032x}" == given.split("-")[1]
    assert f"{first.parent.span_id:016x}" == given.split("-")[2]
    assert second.parent is None
