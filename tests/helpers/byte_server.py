"""A real HTTP server on a loopback socket that answers with exactly the bytes a test says."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator


_SINGLY = 3_000  # bytes at either end


@dataclass
class Received:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Server:
    url: str
    requests: list[Received] = field(default_factory=list)
    connections: int = 0


async def serve(
    nursery: trio.Nursery, answer: Callable[[trio.SocketStream, Received], Awaitable[None]]
) -> Server:
    """Answer every request on every connection with `answer`, until the nursery is cancelled."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    server = Server(f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}")
    nursery.start_soon(partial(trio.serve_listeners, partial(_talk, server, answer), listeners))
    return server


async def _talk(
    server: Server,
    answer: Callable[[trio.SocketStream, Received], Awaitable[None]],
    stream: trio.SocketStream,
) -> None:
    server.connections += 1
    buffered = b""
    try:
        while True:
            while b"\r\n\r\n" not in buffered:
                data = await stream.receive_some()
                if not data:
                    return
                buffered += data
            head, _, buffered = buffered.partition(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            length = int(headers.get("content-length", 0))
            while len(buffered) < length:
                buffered += await stream.receive_some()
            method, target, _ = first.split(" ")
            request = Received(method, target, headers, buffered[:length])
            buffered = buffered[length:]
            server.requests.append(request)
            await answer(stream, request)
    except (trio.BrokenResourceError, trio.ClosedResourceError, ConnectionError):
        pass
    finally:
        await trio.aclose_forcefully(stream)


def head(status: int, headers: Iterable[tuple[str, str]], *more: tuple[str, str]) -> bytes:
    """The first bytes of an answer."""
    lines = [f"HTTP/1.1 {status} Status", *(f"{name}: {value}" for name, value in [*headers, *more])]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def pieces(body: bytes, size: int | None) -> Iterator[bytes]:
    """`body` in pieces of `size` bytes, or whole."""
    size = size or max(len(body), 1)
    return (body[start : start + size] for start in range(0, len(body), size))


def middling(body: bytes, size: int | None) -> Iterator[bytes]:
    """As `pieces`, but the middle of a long body in larger ones: a packet for every byte takes seconds."""
    if size != 1:
        return pieces(body, size)
    middle = slice(_SINGLY, max(_SINGLY, len(body) - _SINGLY))
    parts = ((body[: middle.start], 1), (body[middle], 97), (body[middle.stop :], 1))
    return (data for part, length in parts if part for data in pieces(part, length))


def fixed(
    status: int,
    headers: Iterable[tuple[str, str]],
    body: bytes,
    *,
    piece: int | None = None,
    chunked: bool = False,
) -> Callable[[trio.SocketStream, Received], Awaitable[None]]:
    """An answer that is the same for every request, in pieces of `piece` bytes."""
    framing = ("transfer-encoding", "chunked") if chunked else ("content-length", str(len(body)))

    async def answer(stream: trio.SocketStream, request: Received) -> None:
        await stream.send_all(head(status, headers, framing))
        if chunked:
            # HTTP keeps the pieces apart, however many of them travel together.
            await stream.send_all(
                b"".join(b"%x\r\n%b\r\n" % (len(data), data) for data in pieces(body, piece))
            )
            await stream.send_all(b"0\r\n\r\n")
            return
        for data in middling(body, piece):
            await send(stream.socket, data)

    return answer


async def send(socket: trio.socket.SocketType, data: bytes) -> None:
    """Send `data` by itself: the reader gets its turn before anything follows."""
    while data:
        data = data[await socket.send(data) :]


def events(*payloads: object) -> bytes:
    """Server-sent events, one a payload; text is sent as it stands, anything else as JSON."""
    texts = [each if isinstance(each, str) else json.dumps(each) for each in payloads]
    return "".join(f"data: {text}\n\n" for text in texts).encode()
