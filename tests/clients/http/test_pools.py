"""Connections that wait for the next call: which one a call gets, and when one is closed."""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import httpcore
import httpx
import pytest
import trio
import trio.testing

from helpers.byte_server import Received, Server, fixed, head, serve
from helpers.held_bytes import longest_bytes_held_by
from ultra.clients import OpenAIClient
from ultra.clients.http.pools import ConnectionPool
from ultra.errors import ModelError

if TYPE_CHECKING:
    from trio.testing import MockClock

JSON = [("content-type", "application/json")]
ANSWER = b'{"choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}]}'


def new_pool(proxy: str | None = None) -> ConnectionPool:
    return ConnectionPool(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), proxy)


async def begin(pool: ConnectionPool, url: str) -> httpx.Response:
    """Send a request, and leave the body of the answer unread."""
    return await pool.handle_async_request(httpx.Request("POST", url, content=b"{}"))


async def end(response: httpx.Response) -> None:
    """Read the body, and give the connection back."""
    await response.aread()


async def client_port(request: httpx.Response) -> int:
    """The port of the connection that an answer came on."""
    address: tuple[str, int] = request.extensions["network_stream"].get_extra_info("client_addr")
    return address[1]


async def test_a_call_gets_the_connection_that_was_used_last(nursery: trio.Nursery) -> None:
    server = await serve(nursery, fixed(200, JSON, ANSWER))
    pool = new_pool()
    answers = [await begin(pool, server.url) for _ in range(3)]
    ports = [await client_port(answer) for answer in answers]
    for number in (1, 2, 0):
        await end(answers[number])

    again = [await begin(pool, server.url) for _ in range(4)]

    used = [await client_port(answer) for answer in again]
    assert used[:3] == [ports[0], ports[2], ports[1]]
    assert used[3] not in ports
    assert server.connections == len(pool.connections) == 4
    await pool.aclose()


async def test_connections_that_nobody_uses_any_more_are_closed(
    nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    server = await serve(nursery, fixed(200, JSON, ANSWER))
    pool = new_pool()
    answers = [await begin(pool, server.url) for _ in range(4)]
    for answer in answers[:3]:
        await end(answer)
    mock_clock.jump(4)
    await end(await begin(pool, server.url))
    assert len(pool.connections) == 4

    mock_clock.jump(2)
    await end(await begin(pool, server.url))

    assert len(pool.connections) == 2, "one is in use, however long its call takes"
    assert server.connections == 4, "the one that was used two seconds ago is used again"
    await end(answers[3])
    await pool.aclose()


async def test_a_connection_that_was_idle_too_long_is_not_used(
    nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    server = await serve(nursery, fixed(200, JSON, ANSWER))
    pool = new_pool()
    await end(await begin(pool, server.url))
    mock_clock.jump(6)

    await end(await begin(pool, server.url))

    assert (server.connections, len(pool.connections)) == (2, 1)
    await pool.aclose()


async def test_a_connection_that_the_server_closed_is_not_used(nursery: trio.Nursery) -> None:
    closed = trio.Event()

    async def answer_once(stream: trio.SocketStream, request: Received) -> None:
        await fixed(200, JSON, ANSWER)(stream, request)
        await trio.testing.wait_all_tasks_blocked()  # the client has its answer
        await stream.aclose()
        closed.set()

    server = await serve(nursery, answer_once)
    pool = new_pool()
    await end(await begin(pool, server.url))
    await closed.wait()

    await end(await begin(pool, server.url))

    assert (len(server.requests), server.connections) == (2, 2)
    await pool.aclose()


@pytest.mark.parametrize(
    "behind",
    [b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged", b"garbage\r\n\r\n", b"\r\n", b"H"],
    ids=["an answer", "garbage", "an empty line", "one byte"],
)
async def test_what_stands_behind_an_answer_is_not_the_next_one(nursery: trio.Nursery, behind: bytes) -> None:
    message = head(200, JSON, ("content-length", "4")) + b"true"

    async def answer(stream: trio.SocketStream, _request: Received) -> None:
        await stream.send_all(message + behind)

    server = await serve(nursery, answer)
    pool = new_pool()
    for _ in range(3):
        response = await begin(pool, server.url)
        assert await response.aread() == b"true"

    assert (len(server.requests), server.connections) == (3, 3)
    await pool.aclose()


class _Together(trio.abc.Stream):
    """A stream that sends what it is given only when it is told to, all at once."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._kept = b""
        self.waits = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self._kept += data
        if not self.waits:
            kept, self._kept = self._kept, b""
            await self._stream.send_all(kept)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self._stream.aclose()


def _without_certificate(side: int) -> ssl.SSLContext:
    context = ssl.SSLContext(side)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # later ones always have a certificate
    context.set_ciphers("AECDH-AES128-SHA:@SECLEVEL=0")
    return context


@pytest.mark.parametrize(
    ("behind", "connections"), [(b"", 1), (b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged", 3)]
)
async def test_what_stands_behind_an_answer_in_tls_is_not_the_next_one(
    nursery: trio.Nursery, behind: bytes, connections: int
) -> None:
    server = _without_certificate(ssl.PROTOCOL_TLS_SERVER)
    opened = 0

    async def talk(stream: trio.SocketStream) -> None:
        nonlocal opened
        opened += 1
        network = _Together(stream)
        encrypted = trio.SSLStream(network, server, server_side=True)
        with suppress(trio.BrokenResourceError):
            while b"{}" in await encrypted.receive_some():  # a request is one record
                network.waits = True
                await encrypted.send_all(head(200, JSON, ("content-length", "4")) + b"true")
                await encrypted.send_all(behind)  # a record of its own, decrypted when it is read
                network.waits = False
                await network.send_all(b"")

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, talk, listeners)
    pool = ConnectionPool(_without_certificate(ssl.PROTOCOL_TLS_CLIENT))
    for _ in range(3):
        response = await begin(pool, f"https://127.0.0.1:{listeners[0].socket.getsockname()[1]}")
        assert await response.aread() == b"true"

    assert opened == connections
    nursery.cancel_scope.cancel()
    await pool.aclose()


async def test_a_call_to_another_address_opens_a_connection_there(nursery: trio.Nursery) -> None:
    first, second = [await serve(nursery, fixed(200, JSON, ANSWER)) for _ in range(2)]
    pool = new_pool()
    for server in (first, second):
        await end(await begin(pool, server.url))

    assert (len(first.requests), len(second.requests), len(pool.connections)) == (1, 1, 1)
    await pool.aclose()


async def test_a_call_may_end_after_its_pool_was_closed(nursery: trio.Nursery) -> None:
    async def answer_in_part(stream: trio.SocketStream, request: Received) -> None:
        await stream.send_all(head(200, JSON, ("content-length", "9")))
        await hang(stream, request)

    server = await serve(nursery, answer_in_part)
    pool = new_pool()
    answer = await begin(pool, server.url)

    await pool.aclose()
    with pytest.raises(httpx.ReadError):
        await end(answer)
    await answer.aclose()

    assert pool.connections == ()


async def test_errors_of_httpcore_come_out_as_those_of_httpx() -> None:
    with pytest.raises(httpx.ConnectError):
        await begin(new_pool(), "http://127.0.0.1:1")
    with pytest.raises(httpx.UnsupportedProtocol, match="begins with 'ftp'"):
        await begin(new_pool(), "ftp://127.0.0.1:1")


async def test_head_and_body_of_a_request_are_sent_together(nursery: trio.Nursery) -> None:
    received: list[bytes] = []

    async def talk(stream: trio.SocketStream) -> None:
        received.append(await stream.receive_some())
        await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    listeners = await nursery.start(trio.serve_tcp, talk, 0)
    port = listeners[0].socket.getsockname()[1]
    pool = new_pool()

    await end(await begin(pool, f"http://127.0.0.1:{port}"))

    assert received[0].endswith(b"\r\n\r\n{}")
    await pool.aclose()


@pytest.mark.parametrize("size", [65_000, 65_536, 65_537, 1_000_000])
async def test_a_long_request_is_sent_whole(nursery: trio.Nursery, size: int) -> None:
    server = await serve(nursery, fixed(200, JSON, ANSWER))
    pool = new_pool()
    body = bytes(range(256)) * (size // 256) + b"!" * (size % 256)

    for _ in range(2):
        await end(await pool.handle_async_request(httpx.Request("POST", server.url, content=body)))

    assert [request.body for request in server.requests] == [body, body]
    await pool.aclose()


def client_of(server: Server) -> OpenAIClient:
    return OpenAIClient("m", provider="openai", base_url=f"{server.url}/v1")


async def test_as_many_connections_are_kept_as_there_were_calls_at_once(nursery: trio.Nursery) -> None:
    calls = 24
    waiting = 0
    all_wait = trio.Event()

    async def answer(stream: trio.SocketStream, request: Received) -> None:
        nonlocal waiting, all_wait
        waiting += 1
        if waiting == calls:
            all_wait.set()
            waiting, all_wait = 0, trio.Event()
        else:
            await all_wait.wait()
        await fixed(200, JSON, ANSWER)(stream, request)

    server = await serve(nursery, answer)
    client = client_of(server)
    for _ in range(2):
        async with trio.open_nursery() as callers:
            for _ in range(calls):
                callers.start_soon(client.generate, "Hi")
    await client.aclose()

    assert (len(server.requests), server.connections) == (2 * calls, calls)


async def hang(stream: trio.SocketStream, _request: Received) -> None:
    await stream.receive_some()


@pytest.mark.parametrize("cause", ["cancelled", "refused", "an error", "an answer", "a stream"])
async def test_every_end_of_a_call_gives_its_connection_back(nursery: trio.Nursery, cause: str) -> None:
    called = trio.Event()
    answers = {"cancelled": hang, "an error": fixed(500, JSON, b"{}")}

    async def answer(stream: trio.SocketStream, request: Received) -> None:
        called.set()
        await answers.get(cause, fixed(200, JSON, ANSWER))(stream, request)

    server = await serve(nursery, answer)
    client = client_of(server)
    if cause == "refused":
        client.dialect.base_url = "http://127.0.0.1:1"

    async def call() -> None:
        if cause == "a stream":
            async with client.stream("Hi") as stream:
                await anext(stream)
        else:
            await client.generate("Hi")

    async def call_and_fail() -> None:
        try:
            await call()
        except ModelError:
            assert cause in {"refused", "an error"}

    async with trio.open_nursery() as callers:
        callers.start_soon(call_and_fail)
        if cause == "cancelled":
            await called.wait()
            callers.cancel_scope.cancel()

    pool = client._connections._transports[trio.lowlevel.current_trio_token()]
    assert isinstance(pool, ConnectionPool)
    assert not pool._busy
    assert len(pool.connections) == (0 if cause in {"cancelled", "refused"} else 1)
    await client.aclose()


async def test_closing_reaches_a_call_that_is_still_connecting(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected, go_on = trio.Event(), trio.Event()
    backend: Any = httpcore.TrioBackend
    connect = backend.connect_tcp
    streams: list[httpcore.AsyncNetworkStream] = []

    async def connect_slowly(*args: Any, **kwargs: Any) -> httpcore.AsyncNetworkStream:
        streams.append(await connect(*args, **kwargs))
        connected.set()
        await go_on.wait()
        return streams[0]

    monkeypatch.setattr(backend, "connect_tcp", connect_slowly)
    server = await serve(nursery, fixed(200, JSON, ANSWER))
    client = client_of(server)
    errors: list[ModelError] = []

    async def call() -> None:
        with pytest.raises(ModelError) as caught:
            await client.generate("Hi")
        errors.append(caught.value)

    async with trio.open_nursery() as callers:
        callers.start_soon(call)
        await connected.wait()
        await client.aclose()
        go_on.set()

    assert errors[0].kind == "connection"
    assert streams[0].get_extra_info("socket").fileno() == -1


async def test_a_stream_keeps_no_copy_of_what_was_sent(nursery: trio.Nursery) -> None:
    begun = b'data: {"choices": [{"index": 0, "delta": {"content": "Hello"}}]}\n\n'

    async def answer(stream: trio.SocketStream, request: Received) -> None:
        await stream.send_all(head(200, [("content-type", "text/event-stream")]) + begun)
        await trio.sleep_forever()

    server = await serve(nursery, answer)
    client = OpenAIClient("m", provider="openai", base_url=server.url, api_key="k")
    prompt = "word " * 100_000

    async with client.stream(prompt) as stream:
        assert await anext(stream) == "Hello"
        assert longest_bytes_held_by(stream) < len(prompt)

    await client.aclose()
