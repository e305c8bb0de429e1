"""Connections of the service: what is written together, what waits for nobody, what an end closes."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio

from helpers.services import CHAT, PATIENCE, chat, service_of
from ultra.config.keys import KeyConfig, hash_of
from ultra.config.serving import ServeConfig
from ultra.service import server
from ultra.service.http import JSON
from ultra.service.server import listen, serve
from ultra.testing import FakeModel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from ultra.service.core import Service


@asynccontextmanager
async def open_service(service: Service, app: object | None = None) -> AsyncIterator[tuple[str, int]]:
    """Serve it as the command does for the block, and end it in order; yields host and port."""
    send, receive = trio.open_memory_channel[int](1)
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:

            async def run(task_status: trio.TaskStatus[str]) -> None:
                announce: Callable[[str], None] = task_status.started
                listening = listen("127.0.0.1", 0)
                await serve(service, listening, announce=announce, signals=aiter(receive), app=app)

            url: str = await nursery.start(run)
            host, _, port = url.removeprefix("http://").partition(":")
            yield host, int(port)
            await send.send(15)


def request(body: bytes = b"", *headers: str, method: str = "POST", path: str = CHAT) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "host: 127.0.0.1", f"content-length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def question(text: str, **more: Any) -> bytes:
    return msgspec.json.encode(chat("a", text, **more))


async def read_until(stream: trio.SocketStream, end: bytes, count: int = 1) -> bytes:
    data = b""
    while data.count(end) < count:
        piece = await stream.receive_some()
        assert piece, data
        data += piece
    return data


async def rest_of(stream: trio.SocketStream) -> bytes:
    return b"".join([piece async for piece in stream])


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """All that is written to sockets, write by write; what the tests themselves write, too."""
    found: list[bytes] = []
    send_all = trio.SocketStream.send_all

    async def noted(self: trio.SocketStream, data: Any) -> None:
        found.append(bytes(data))
        await send_all(self, data)

    monkeypatch.setattr(trio.SocketStream, "send_all", noted)
    return found


async def test_head_and_body_of_an_answer_are_one_write_and_so_is_each_event(writes: list[bytes]) -> None:
    service = service_of({"a": FakeModel("Paris.")})
    async with open_service(service) as place, await trio.open_tcp_stream(*place) as stream:
        await stream.send_all(request(question("x")))
        await read_until(stream, b'"Paris."')
        plain = writes[1:]
        await stream.send_all(request(question("y", stream=True)))
        await read_until(stream, b"0\r\n\r\n")
        streamed = writes[len(plain) + 2 :]

    assert len(plain) == 1
    assert plain[0].startswith(b"HTTP/1.1 200")
    assert b"assistant" in streamed[0]
    assert streamed[0].startswith(b"HTTP/1.1 200")
    assert all(each.count(b"data: ") <= 1 for each in streamed)


async def test_requests_that_come_together_are_answered_in_their_order() -> None:
    model = FakeModel(lambda request: f"<{request.prompt}>")
    async with open_service(service_of({"a": model})) as place, await trio.open_tcp_stream(*place) as stream:
        await stream.send_all(request(question("one")) + request(question("two")))
        data = await read_until(stream, b'finish_reason":"stop"', 2)

    assert 0 < data.index(b"<one>") < data.index(b"<two>")


async def test_an_answer_to_head_has_no_body_and_the_connection_goes_on() -> None:
    service = service_of({"a": FakeModel()})
    async with open_service(service) as place, await trio.open_tcp_stream(*place) as stream:
        await stream.send_all(request(method="HEAD", path="/healthz"))
        head = await read_until(stream, b"\r\n\r\n")
        await stream.send_all(request(method="GET", path="/healthz"))
        whole = await read_until(stream, b"}")

    assert head.endswith(b"\r\n\r\n")
    assert b'{"status":"ok"}' not in head
    assert whole.endswith(b'{"status":"ok"}')


async def test_a_client_that_waits_to_be_told_sends_its_body_then() -> None:
    body = question("x")
    service = service_of({"a": FakeModel("Paris.")})
    async with open_service(service) as place, await trio.open_tcp_stream(*place) as stream:
        await stream.send_all(request(body, "expect: 100-continue")[: -len(body)])
        told = await read_until(stream, b"\r\n\r\n")
        await stream.send_all(body)
        answer = await read_until(stream, b'"Paris."')

    assert told.startswith(b"HTTP/1.1 100")
    assert answer.startswith(b"HTTP/1.1 200")


async def test_a_long_body_that_nobody_reads_holds_up_neither_the_answer_nor_the_end() -> None:
    keys = (KeyConfig(name="alice", hash=hash_of("sk-ultra-of-alice")),)
    service = service_of({"a": FakeModel()}, settings=ServeConfig(keys=keys))
    async with open_service(service) as place, await trio.open_tcp_stream(*place) as stream:
        try:
            await stream.send_all(request(b"x" * 4 * 2**20))
            answer = await rest_of(stream)
        except trio.BrokenResourceError:
            return  # it was closed while it sent
    assert answer.startswith(b"HTTP/1.1 401")


async def test_connections_that_are_idle_are_closed_at_the_end_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "_AFTER_DRAIN", 10 * PATIENCE)
    service = service_of({"a": FakeModel("Paris.")})
    ends: list[bytes] = []
    async with trio.open_nursery() as nursery, open_service(service) as place:
        fresh = await trio.open_tcp_stream(*place)
        used = await trio.open_tcp_stream(*place)
        await used.send_all(request(question("x")))
        await read_until(used, b'"Paris."')

        async def wait_for_the_end(stream: trio.SocketStream) -> None:
            ends.append(await rest_of(stream))
            await stream.aclose()

        nursery.start_soon(wait_for_the_end, fresh)
        nursery.start_soon(wait_for_the_end, used)

    assert ends == [b"", b""]


async def test_an_application_that_fails_is_a_status_of_500_and_no_end_of_the_server(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def failing(scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        if scope["path"] == "/group":
            async with trio.open_nursery():
                raise ValueError("of a task")
        if scope["path"] == "/late":
            await send(
                {"type": "http.response.start", "status": 200, "headers": [(b"content-type", JSON.encode())]}
            )
            await send({"type": "http.response.body", "body": b"[", "more_body": True})
        raise ValueError("a fault")

    service = service_of({"a": FakeModel()})
    answers: list[bytes] = []
    async with open_service(service, failing) as place:
        for path in ("/", "/group", "/late"):
            async with await trio.open_tcp_stream(*place) as stream:
                await stream.send_all(request(method="GET", path=path))
                answers.append(await rest_of(stream))

    assert [answer[:12] for answer in answers] == [b"HTTP/1.1 500", b"HTTP/1.1 500", b"HTTP/1.1 200"]
    assert not answers[2].endswith(b"0\r\n\r\n")  # so that nobody takes it for whole
    assert caplog.text.count("Error in ASGI Framework") == 3
