"""A loopback server that speaks as much of the OpenAI dialect as `ultra ask` needs."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

PARIS = ("The capital ", "of France ", "is Paris.")


@dataclass
class Script:
    """How a model answers: `pieces` as a stream, or an error with `status`.

    With a `gate` it waits after the first piece until the test opens it. `asked` tells that a request
    has come, `broken` that somebody who was to get the rest of an answer has gone.
    """

    pieces: tuple[str, ...] = PARIS
    status: int = 200
    gate: trio.Event | None = None
    requests: list[dict[str, Any]] = field(default_factory=list)
    asked: trio.Event = field(default_factory=trio.Event)
    broken: trio.Event = field(default_factory=trio.Event)


class ChatServer:
    """Answers each request as the script of its model says; all models without one answer `PARIS`."""

    def __init__(self, port: int, scripts: Mapping[str, Script]) -> None:
        self.port = port
        self.scripts = dict(scripts)

    @property
    def environment(self) -> dict[str, str]:
        """What a program needs to find this server where it looks for OpenAI."""
        return {"OPENAI_BASE_URL": f"http://127.0.0.1:{self.port}/v1", "OPENAI_API_KEY": "not-a-real-key"}

    async def talk(self, stream: trio.SocketStream) -> None:
        """Serve one connection: one request, and its answer until the connection is closed."""
        async with stream:
            request = json.loads(await _read_body(stream))
            script = self.scripts.setdefault(request["model"], Script())
            script.requests.append(request)
            script.asked.set()
            try:
                await _answer(stream, script)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                script.broken.set()


@asynccontextmanager
async def chat_server(**scripts: Script) -> AsyncIterator[ChatServer]:
    """Run a server; a keyword is the name of a model and how it answers."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    server = ChatServer(listeners[0].socket.getsockname()[1], scripts)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.serve_listeners, server.talk, listeners))
        yield server
        nursery.cancel_scope.cancel()


async def _read_body(stream: trio.SocketStream) -> bytes:
    received = b""
    while b"\r\n\r\n" not in received:
        received += await stream.receive_some()
    head, _, body = received.partition(b"\r\n\r\n")
    lines = (line.partition(b":") for line in head.lower().splitlines())
    length = int(next(value for name, _, value in lines if name == b"content-length"))
    while len(body) < length:
        body += await stream.receive_some()
    return body


async def _answer(stream: trio.SocketStream, script: Script) -> None:
    if script.status != 200:
        error = json.dumps({"error": {"message": "the model\nis on strike", "type": "server_error"}}).encode()
        await stream.send_all(_head(script.status, "application/json") + error)
        return
    await stream.send_all(_head(200, "text/event-stream"))
    for number, piece in enumerate(script.pieces):
        if number == 1 and script.gate is not None:
            await _gone_or_open(stream, script.gate)
        await stream.send_all(_event({"choices": [{"index": 0, "delta": {"content": piece}}]}))
    usage = {
        "prompt_tokens": 7,
        "completion_tokens": len(script.pieces),
        "total_tokens": 7 + len(script.pieces),
    }
    last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": usage}
    await stream.send_all(_event(last) + b"data: [DONE]\n\n")


async def _gone_or_open(stream: trio.SocketStream, gate: trio.Event) -> None:
    """Wait for the gate; raises BrokenResourceError if the other side closes the connection first."""
    gone = False

    async def watch(scope: trio.CancelScope) -> None:
        nonlocal gone
        try:
            gone = not await stream.receive_some()
        except trio.BrokenResourceError:  # closed before it had read all that was sent
            gone = True
        scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch, nursery.cancel_scope)
        await gate.wait()
        nursery.cancel_scope.cancel()
    if gone:
        raise trio.BrokenResourceError


def _head(status: int, content_type: str) -> bytes:
    return f"HTTP/1.1 {status} Status\r\ncontent-type: {content_type}\r\nconnection: close\r\n\r\n".encode()


def _event(payload: object) -> bytes:
    return f"data: {json.dumps(payload)}\n\n".encode()
