"""`ultra mcp` as a program: the official client starts it, or reaches it over HTTP."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TextIO, cast

import httpx2
import pytest
import trio
from mcp import Client, StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import TextContent

from helpers.command_line import PATIENCE, ended, environment, programs, run_ultra, ultra_running
from ultra.faults.provider import SimulatedProvider, simulated_provider

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from mcp.types import CallToolResult

pytestmark = [
    pytest.mark.usefixtures("no_garbage_is_left"),
    pytest.mark.filterwarnings("ignore:Async generator 'http.*2:ResourceWarning"),  # the SDK's, on trio
]

CONFIGURATION = """
[models.gpt]
model = "openai:any"
base_url = "{base_url}"
api_key = "any-key-will-do"

[models.claude]
model = "openai:other"
base_url = "{base_url}"
api_key = "any-key-will-do"
"""

PROGRAM = "import sys; from ultra.cli import main; sys.exit(main())"

NOISY = """
import os, sys
import ultra.mcp.answers as answers
listed = answers.TOOLS["models"]
async def models(*arguments):
    print("a library prints")
    os.write(1, b"and writes\\n")
    return await listed(*arguments)
answers.TOOLS["models"] = models
from ultra.cli import main
sys.exit(main())
"""


@pytest.fixture
async def provider() -> AsyncIterator[SimulatedProvider]:
    async with simulated_provider() as provider:
        yield provider


@pytest.fixture
def file(provider: SimulatedProvider, tmp_path: Path) -> Path:
    path = tmp_path / "ultra.toml"
    path.write_text(CONFIGURATION.format(base_url=provider.base_url("openai")), "utf-8")
    return path


@asynccontextmanager
async def client_of(
    file: Path, *, mode: str = "auto", program: str = PROGRAM, errors: TextIO | None = None
) -> AsyncIterator[Client]:
    arguments = ["-c", program, "mcp", "--config", str(file), "-v"]
    parameters = StdioServerParameters(command=str(programs() / "python"), args=arguments, env=environment())
    with tempfile.TemporaryFile("w+") as own, trio.fail_after(PATIENCE):
        async with Client(stdio_client(parameters, errors or cast("TextIO", own)), mode=mode) as client:
            yield client


def text(result: CallToolResult) -> str:
    (content,) = result.content
    assert isinstance(content, TextContent)
    return content.text


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_the_official_client_starts_it_and_asks(
    provider: SimulatedProvider, file: Path, mode: str
) -> None:
    provider.script("Paris.", model="any")
    provider.script("Paris.", model="other")
    provider.script("It is Paris.", model="any")
    messages: list[str] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        messages.append(message or "")

    async with client_of(file, mode=mode) as client:
        tools = [tool.name for tool in (await client.list_tools()).tools]
        arguments = {"prompt": "Which?", "strategy": "synthesize", "strategy_options": {"analysts": "none"}}
        result = await client.call_tool("ask", arguments, progress_callback=on_progress)

    assert tools == ["ask", "compare", "models"]
    assert text(result) == "It is Paris."
    assert sum("answered after" in message for message in messages) == 3


async def test_cancelling_a_call_closes_the_requests_to_the_provider(
    provider: SimulatedProvider, file: Path
) -> None:
    provider.latency = 1e6
    async with client_of(file) as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.call_tool, "compare", {"prompt": "Which?"})
            await provider.wait_for_requests(2)
            nursery.cancel_scope.cancel()
        outcomes = [await request.wait_ended() for request in list(provider.requests)]
        provider.latency = 0
        after = await client.call_tool("ask", {"prompt": "And now?", "ensemble": "gpt"})

    assert outcomes == ["abandoned", "abandoned"]
    assert not after.is_error


async def test_a_client_that_is_gone_ends_it_and_the_requests_to_the_provider(
    provider: SimulatedProvider, file: Path
) -> None:
    provider.latency = 1e6
    with trio.move_on_after(PATIENCE) as scope:
        async with client_of(file) as client, trio.open_nursery() as nursery:
            nursery.start_soon(client.call_tool, "ask", {"prompt": "Which?", "ensemble": "gpt"})
            await provider.wait_for_requests(1)
            scope.cancel()
    with trio.fail_after(PATIENCE):
        assert await provider.requests[0].wait_ended() == "abandoned"


async def test_what_libraries_print_does_not_reach_the_client(file: Path, tmp_path: Path) -> None:
    errors_path = tmp_path / "errors"
    with errors_path.open("w") as errors:
        async with client_of(file, program=NOISY, errors=errors) as client:
            result = await client.call_tool("models", {})

    assert not result.is_error
    written = errors_path.read_text("utf-8")
    assert "a library prints\n" in written
    assert "and writes\n" in written


def message(method: str, number: int | None = None, **params: Any) -> bytes:
    told: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params}
    return json.dumps(told if number is None else {**told, "id": number}).encode() + b"\n"


HELLO = message(
    "initialize",
    1,
    protocolVersion="2025-11-25",
    capabilities={},
    clientInfo={"name": "test", "version": "1"},
)


async def test_it_writes_lines_of_the_protocol_and_nothing_else_and_ends_with_stdin(file: Path) -> None:
    async with ultra_running("mcp", "--config", str(file), "-v", stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        await process.stdin.send_all(HELLO + message("tools/list", 2) + b"no JSON\n")
        written = b""
        with trio.fail_after(PATIENCE):
            while written.count(b"\n") < 2:
                written += await process.stdout.receive_some()
            await process.stdin.aclose()
            written += b"".join([piece async for piece in process.stdout])
        code, _ = await ended(process)

    lines = [json.loads(line) for line in written.splitlines()]
    assert code == 0
    assert {line["jsonrpc"] for line in lines} == {"2.0"}
    assert {line.get("id") for line in lines} >= {1, 2}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_while_the_client_is_silent(file: Path, number: signal.Signals) -> None:
    async with ultra_running("mcp", "--config", str(file), stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        await process.stdin.send_all(HELLO)
        with trio.fail_after(PATIENCE):
            assert await process.stdout.receive_some()
        process.send_signal(number)
        code, errors = await ended(process)

    assert (code, errors) == (0, "")


async def test_over_http_its_first_line_is_its_address(provider: SimulatedProvider, file: Path) -> None:
    provider.script("Paris.")
    async with ultra_running("mcp", "--http", "--port", "0", "--config", str(file)) as process:
        assert process.stdout is not None
        with trio.fail_after(PATIENCE):
            url = (await process.stdout.receive_some()).decode()
            assert url.startswith("http://127.0.0.1:")
            assert url.endswith("/mcp\n")
            async with (
                httpx2.AsyncClient(trust_env=False, timeout=PATIENCE) as http,
                Client(streamable_http_client(url.strip(), http_client=http)) as client,
            ):
                result = await client.call_tool("ask", {"prompt": "Which?", "ensemble": "gpt"})
        process.send_signal(signal.SIGTERM)
        code, errors = await ended(process)

    assert text(result) == "Paris."
    assert (code, errors) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--http", "--host", "0.0.0.0"), "there are no keys"),
        (("--http", "--allow-origin", "chat.example"), "give one such as https://chat.example"),
        (("--config", "no-such-file.toml"), "no-such-file.toml"),
    ],
)
async def test_what_is_not_allowed_is_told_before_anything_is_served(
    arguments: tuple[str, ...], told: str, file: Path
) -> None:
    config = () if "--config" in arguments else ("--config", str(file))
    done = await run_ultra("mcp", *arguments, *config)

    assert done.returncode == 2
    assert told in done.stderr.decode()
    assert done.stdout == b""


async def test_without_the_extra_it_is_named(file: Path) -> None:
    code = f"import sys; sys.modules['mcp'] = None; {PROGRAM}"
    with trio.fail_after(PATIENCE):
        done = await trio.run_process(
            [sys.executable, "-c", code, "mcp", "--config", str(file)],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env=environment(),
        )

    assert done.returncode == 2
    assert "ultra-llm[mcp]" in done.stderr.decode()
