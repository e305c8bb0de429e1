"""Clients that take nothing, come by hundreds, or are there when the service ends or dies."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio
from trio.testing import MockClock

from helpers.chat_server import Script, chat_server
from helpers.command_line import ended, ultra_running
from helpers.services import CHAT, chat, service_of, text_of, until
from ultra.config.serving import ServeConfig
from ultra.service import server
from ultra.service.app import make_app
from ultra.service.server import listen, serve
from ultra.testing import FakeAnswer, FakeModel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from helpers.warm_python import ForkedProcess
    from ultra.service.core import Service

PATIENCE = 60.0
STREAMS = 50

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="the system has no such limit, or no /proc")


class Running:
    """A service that runs as the command runs it: its address, and the signals that it is sent."""

    def __init__(self, service: Service) -> None:
        self.url = ""
        self.service = service
        self.send_signal, self._signals = trio.open_memory_channel[int](9)
        self._answers = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[str]) -> None:
        def announce(url: str) -> None:
            self.url = url
            task_status.started(url)

        listening = listen("127.0.0.1", 0)
        await serve(self.service, listening, announce=announce, signals=aiter(self._signals))


def client_to(url: str) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=2 * STREAMS)
    return httpx.AsyncClient(base_url=url, trust_env=False, timeout=PATIENCE, limits=limits)


async def stalled(url: str, body: Mapping[str, Any]) -> trio.SocketStream:
    """Ask, on a connection of which nothing is read, and in which the system keeps little."""
    host, _, port = url.removeprefix("http://").partition(":")
    connection = trio.socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await connection.connect((host, int(port)))
    stream = trio.SocketStream(connection)
    data = json.dumps(body, separators=(",", ":")).encode()  # as the other client, whose run it may share
    head = f"POST {CHAT} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(data)}\r\n\r\n"
    await stream.send_all(head.encode() + data)
    return stream


async def test_readers_that_take_nothing_share_one_text_and_hold_up_nobody() -> None:
    size = 4 * 2**20
    model = FakeModel(FakeAnswer("A" * (size // 2), "B" * (size // 2)), gated=True)
    running = Running(service_of({"a": model}))
    answers: list[httpx.Response] = []

    async def ask_too(client: httpx.AsyncClient) -> None:
        answers.append(await client.post(CHAT, json=chat("a", stream=True)))

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            url = await nursery.start(running.run)
            streams = [await stalled(url, chat("a", stream=True)) for _ in range(STREAMS)]
            await until(lambda: running.service.running_requests == STREAMS)
            tracemalloc.start()
            try:
                async with client_to(url) as client, trio.open_nursery() as asking:
                    asking.start_soon(ask_too, client)  # the same question: it joins the run of the others
                    await until(lambda: running.service.running_requests == STREAMS + 1)
                    model.gate.set()
                kept, _ = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            for stream in streams:
                await stream.aclose()
            await until(lambda: running.service.running_requests == 0)
            await running.send_signal.send(signal.SIGTERM)

    chunks = [json.loads(line[6:]) for line in answers[0].text.split("\n") if line.startswith("data: {")]
    assert len(text_of(chunks)) == size
    assert len(model.calls) == 1
    assert kept < 8 * size  # and not fifty times as much


@linux_only
async def test_a_reader_that_takes_nothing_is_given_up_and_its_run_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "_STALLED", 300)
    pieces = ["x" * 2**20] * 64
    model = FakeModel(FakeAnswer(*pieces, piece_seconds=0.05))
    running = Running(service_of({"a": model}, settings=ServeConfig(linger=0)))
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            url = await nursery.start(running.run)
            stream = await stalled(url, chat("a", stream=True))
            await model.asked.wait()
            await until(lambda: running.service.running_requests == 0)
            await running.send_signal.send(signal.SIGTERM)
        await stream.aclose()

    assert model.cancelled == 1


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize(("seconds", "whole"), [(1.0, True), (float("inf"), False)])
async def test_who_hangs_up_during_the_last_piece_holds_its_request_for_seconds_at_most(
    autojump_clock: MockClock, *, streams: bool, seconds: float, whole: bool
) -> None:
    """A server tells the end of a request in the same words, and in the middle of sending that piece."""
    del autojump_clock
    service = service_of({"a": FakeModel(name="a", answers="Paris")})
    body = json.dumps(chat("a", stream=streams)).encode()
    gone, sent = trio.Event(), list[object]()

    async def receive() -> dict[str, Any]:
        if body not in sent:
            sent.append(body)
            return {"type": "http.request", "body": body}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            gone.set()
            await trio.sleep(seconds)  # Hypercorn waits for the window of an HTTP/2 stream that nobody opens
            sent.append("whole")

    scope = {"type": "http", "method": "POST", "path": CHAT, "headers": [], "client": ("127.0.0.1", 1)}
    async with service.running():
        with trio.fail_after(PATIENCE):
            await make_app(service)(scope, receive, send)
        assert ("whole" in sent) == whole
        assert service.running_requests == 0


async def test_who_takes_no_refusal_holds_its_request_for_seconds_at_most(autojump_clock: MockClock) -> None:
    del autojump_clock
    service, began = service_of({"a": FakeModel(name="a")}), list[object]()

    async def send(message: Any) -> None:
        began.append(message["type"])
        await trio.sleep_forever()

    headers = [(b"content-encoding", b"gzip")]
    scope = {"type": "http", "method": "POST", "path": CHAT, "headers": headers, "client": ("127.0.0.1", 1)}
    async with service.running():
        with trio.fail_after(PATIENCE):
            await make_app(service)(scope, trio.sleep_forever, send)
    assert began == ["http.response.start"]


async def test_fifty_streams_end_whole_when_the_service_drains() -> None:
    model = FakeModel("one two three", gated=True)
    running = Running(service_of({"a": model}))
    answers: list[httpx.Response] = []

    async def ask_one(client: httpx.AsyncClient, number: int) -> None:
        answers.append(await client.post(CHAT, json=chat("a", text=str(number), stream=True)))

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            url = await nursery.start(running.run)
            async with client_to(url) as client, trio.open_nursery() as asking:
                for number in range(STREAMS):
                    asking.start_soon(ask_one, client, number)
                await until(lambda: running.service.running_requests == STREAMS)
                await running.send_signal.send(signal.SIGTERM)
                await until(lambda: running.service.is_draining)
                late = await client.post(CHAT, json=chat("a", text="late"))
                model.gate.set()

    assert (late.status_code, late.headers["retry-after"]) == (503, "1")
    assert len(answers) == STREAMS
    for answer in answers:
        assert answer.text.count('finish_reason":"stop') == 1
        assert answer.text.endswith("data: [DONE]\n\n")


CONFIGURATION = """
[models.gpt]
model = "openai:gpt"
base_url = "{base_url}"
api_key = "any-key-will-do"
limits = {{ concurrency = 100 }}  # the system may give all connections to one worker

[serve]
commit_after = 0.05
"""


async def first_line(process: ForkedProcess) -> str:
    assert process.stdout is not None
    data = b""
    while b"\n" not in data:
        piece = await process.stdout.receive_some()
        assert piece, "it ended"
        data += piece
    return data.decode().strip()


def children_of(process: ForkedProcess) -> list[int]:
    """The ids of the processes that a process has started; first the one with the most connections."""
    threads = Path(f"/proc/{process.pid}/task").glob("*/children")
    children = [int(child) for thread in threads for child in thread.read_text("ascii").split()]
    return sorted(children, key=lambda child: len(list(Path(f"/proc/{child}/fd").iterdir())), reverse=True)


@linux_only
@pytest.mark.long
async def test_a_worker_that_is_killed_breaks_its_streams_only_and_is_replaced(tmp_path: Path) -> None:
    script = Script(gate=trio.Event())
    ends: list[str] = []

    async def ask_one(client: httpx.AsyncClient, number: int) -> None:
        body = chat("gpt", text=str(number), stream=True)
        text = ""
        try:
            async with client.stream("POST", CHAT, json=body, headers={"connection": "close"}) as answer:
                async for piece in answer.aiter_text():
                    text += piece
        except httpx.TransportError:
            ends.append("broken")
            return
        ends.append("whole" if text.endswith("data: [DONE]\n\n") else "cut")

    with trio.fail_after(PATIENCE):
        async with chat_server(gpt=script) as upstream:
            file = tmp_path / "ultra.toml"
            file.write_text(CONFIGURATION.format(base_url=upstream.environment["OPENAI_BASE_URL"]), "utf-8")
            async with ultra_running(
                "serve", "--config", str(file), "--port", "0", "--workers", "2"
            ) as process:
                url = await first_line(process)
                async with client_to(url) as client:
                    async with trio.open_nursery() as asking:
                        for number in range(STREAMS):
                            asking.start_soon(ask_one, client, number)
                        await until(lambda: len(script.requests) == STREAMS)
                        os.kill(children_of(process)[0], signal.SIGKILL)
                        await script.broken.wait()
                        assert script.gate is not None
                        script.gate.set()
                    again = await client.post(CHAT, json=chat("gpt"), headers={"connection": "close"})
                process.send_signal(signal.SIGTERM)
                code, errors = await ended(process)

    assert len(ends) == STREAMS
    assert ends.count("whole") + ends.count("broken") == STREAMS
    assert "broken" in ends
    assert (again.status_code, code) == (200, 0)
    assert "a worker has died" in errors


def memory_of(process: ForkedProcess) -> int:
    """The bytes of memory that a process takes."""
    status = Path(f"/proc/{process.pid}/status").read_text("utf-8")
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))


@linux_only
async def test_five_hundred_clients_that_never_end_their_requests_cost_little_memory(tmp_path: Path) -> None:
    begun = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-long: " + b"a" * 30_000
    with trio.fail_after(PATIENCE):
        async with chat_server() as upstream:
            file = tmp_path / "ultra.toml"
            file.write_text(CONFIGURATION.format(base_url=upstream.environment["OPENAI_BASE_URL"]), "utf-8")
            async with ultra_running("serve", "--config", str(file), "--port", "0") as process:
                url = await first_line(process)
                host, _, port = url.removeprefix("http://").partition(":")
                async with client_to(url) as client:
                    first = await client.post(CHAT, json=chat("gpt"))
                    before = memory_of(process)
                    streams = [await trio.open_tcp_stream(host, int(port)) for _ in range(500)]
                    for stream in streams:
                        await stream.send_all(begun)
                    meanwhile = await client.post(CHAT, json=chat("gpt", text="meanwhile"))
                    grown = memory_of(process) - before
                for stream in streams:
                    await stream.aclose()
                process.send_signal(signal.SIGTERM)
                code, _ = await ended(process)

    assert [first.status_code, meanwhile.status_code, code] == [200, 200, 0]
    assert grown < 500 * 150_000
