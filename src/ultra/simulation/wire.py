"""A model of the simulation behind HTTP in memory, asked by Ultra's own client with faults on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import httpx
import msgspec

from ultra.clients.http.dialect_clients import OpenAIClient
from ultra.clients.http.limits import HTTPLimits
from ultra.errors import ErrorKind, ModelError
from ultra.faults.transport import FaultyTransport

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from typing import Self

    from ultra.faults.plan import FaultPlan
    from ultra.simulation.models import VirtualModel

__all__ = ["LARGEST_ANSWER", "over_http"]

LARGEST_ANSWER: Final = 20_000
"""Bytes that a client takes of one answer."""

READ_TIMEOUT: Final = 2.0
"""Virtual seconds that a server may be silent."""

STATUS: Final[Mapping[ErrorKind, int]] = {"auth": 401, "rate_limit": 429, "server": 500, "overloaded": 503}


def over_http(model: VirtualModel, plan: FaultPlan) -> OpenAIClient:
    """A client that asks `model` in OpenAI's dialect, with the HTTP faults of `plan` on the way."""
    return OpenAIClient(
        "virtual",
        provider="openai",
        base_url=f"http://{model.name}.example/v1",
        limits=HTTPLimits(read_timeout=READ_TIMEOUT, max_response_bytes=LARGEST_ANSWER),
        trust_env=False,
        transport=FaultyTransport(plan, _Server(model)),
    )


class _Server(httpx.AsyncBaseTransport):
    """Answers ``/chat/completions`` by a model."""

    def __init__(self, model: VirtualModel) -> None:
        self._model = model

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        asked = msgspec.json.decode(await request.aread())
        said = {message["role"]: message["content"] for message in asked["messages"]}
        prompt, system = said["user"], said.get("system")
        if asked.get("stream"):
            events = _Events(self._model.stream(prompt, system=system))
            return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=events)
        try:
            answer = await self._model.generate(prompt, system=system)
        except ModelError as error:
            if error.kind not in STATUS:
                raise httpx.ReadError("the server hung up", request=request) from error
            return httpx.Response(STATUS[error.kind])
        return httpx.Response(
            200,
            headers={"content-type": "application/json"},
            content=_json({"message": {"content": answer}, "finish_reason": "stop"}),
        )


class _Events(httpx.AsyncByteStream):
    """The pieces of an answer, each as an event."""

    def __init__(self, pieces: AsyncGenerator[str]) -> None:
        self._pieces = pieces
        self._over = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._over:
            raise StopAsyncIteration
        try:
            piece = await anext(self._pieces, None)
        except ModelError as error:
            raise httpx.ReadError("the server hung up") from error
        if piece is not None:
            return b"data: %s\n\n" % _json({"delta": {"content": piece}})
        self._over = True
        return b"data: %s\n\ndata: [DONE]\n\n" % _json({"delta": {}, "finish_reason": "stop"})

    async def aclose(self) -> None:
        await self._pieces.aclose()


def _json(choice: dict[str, Any]) -> bytes:
    return msgspec.json.encode({"choices": [{"index": 0, **choice}]})
