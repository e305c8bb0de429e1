"""The section `[telemetry]`, and what is made of it."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

import pytest

from ultra import MultiLLMOrchestrator
from ultra.config.file import ConfigurationFile
from ultra.config.loading import load_configuration
from ultra.config.untrusted import wishes
from ultra.errors import ConfigError
from ultra.telemetry.otel_export import exporting_providers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MODEL = '[models.a]\nmodel = "openai:any"\nbase_url = "http://127.0.0.1:9/v1"\napi_key = "any-key-will-do"\n'


def written(folder: Path, text: str) -> Path:
    path = folder / "ultra.toml"
    path.write_text(f"{MODEL}{text}\n", "utf-8")
    return path


def test_without_it_nobody_is_told(tmp_path: Path) -> None:
    assert not MultiLLMOrchestrator.from_config(written(tmp_path, "")).observers


def test_a_wrong_setting_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"telemetry\.tracing: unknown key"):
        load_configuration(written(tmp_path, "[telemetry]\ntracing = true"))


def test_a_file_that_is_found_may_send_nothing_to_a_collector(tmp_path: Path) -> None:
    path = tmp_path / "ultra.toml"
    path.write_text("[telemetry]\notel = true\ncontent = true\n", "utf-8")
    wanted = dict(wishes(ConfigurationFile.read(path).table()))
    assert set(wanted) == {("telemetry", "otel"), ("telemetry", "content")}


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A collector of OpenTelemetry on this machine: the paths that were posted to it."""
    paths: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            paths.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - of the base class
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield paths
    server.shutdown()
    thread.join()
    server.server_close()


def test_what_is_told_goes_to_the_collector_of_the_environment(collector: list[str]) -> None:
    tracing, measuring = exporting_providers()
    assert tracing is not None
    assert measuring is not None
    with tracing.get_tracer("test").start_as_current_span("a span"):
        measuring.get_meter("test").create_counter("a.counter").add(1)
    tracing.shutdown()  # type: ignore[attr-defined] # of the SDK
    measuring.shutdown()  # type: ignore[attr-defined]
    assert {"/v1/traces", "/v1/metrics"} <= set(collector)
