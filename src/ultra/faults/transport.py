"""A transport for httpx that goes wrong as a fault plan says, around a real or an in-memory one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import anyio
import httpx

from ultra.faults.http_faults import (
    ConnectFails,
    ContentType,
    Disconnects,
    HugeBody,
    MalformedEvents,
    ReadTimesOut,
    SlowBody,
    Status,
    StreamError,
    Truncates,
)
from ultra.faults.rules import draw_seconds

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from ultra.faults.http_faults import HttpFaults
    from ultra.faults.rules import Rule

__all__ = ["FaultyTransport"]

_END_OF_EVENT: Final = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_CHUNK: Final = 65_536
_CHANGE_LENGTH: Final = (Disconnects, Truncates, MalformedEvents, StreamError)


class FaultyTransport(httpx.AsyncBaseTransport):
    """Give it to a client: ``httpx.AsyncClient(transport=FaultyTransport(plan))``.

    The HTTP rules of `plan` apply to requests by their URL. What they leave alone goes to `transport`:
    the network by default, or an `httpx.MockTransport` or `httpx.ASGITransport` in memory. Closing this
    closes that. Runs on trio and on asyncio; errors are httpx's own, as from a real network.
    """

    def __init__(self, plan: HttpFaults, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._plan = plan
        self._transport = transport or httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer `request`, or fail as the plan says."""
        url = str(request.url)
        fired = self._plan._fired(self._plan._rules_for("http", url))  # noqa: SLF001 - two parts of one plan
        for rule in fired:
            self._plan._record(rule, url)  # noqa: SLF001 - as above
        if fired and fired[-1].fault.ends:
            response = await _in_place_of_server(fired.pop(), request)
        else:
            response = await self._transport.handle_async_request(request)
        return _disturbed(response, fired) if fired else response

    async def aclose(self) -> None:
        """Close the transport inside."""
        await self._transport.aclose()


async def _in_place_of_server(rule: Rule, request: httpx.Request) -> httpx.Response:
    match rule.fault:
        case ConnectFails():
            raise httpx.ConnectError("injected by a fault plan: connection refused", request=request)
        case ReadTimesOut():
            timeout = request.extensions.get("timeout", {}).get("read")
            await (anyio.sleep_forever() if timeout is None else anyio.sleep(timeout))
            raise httpx.ReadTimeout("injected by a fault plan: no answer", request=request)
        case Status(status, retry_after, body):
            headers = {} if retry_after is None else {"retry-after": f"{retry_after:g}"}
            return httpx.Response(status, headers=headers, content=body, request=request)
        case HugeBody(size):
            return httpx.Response(200, stream=_Blanks(size), request=request)
        case other:
            raise AssertionError(f"{other.name} takes no server's place")


def _disturbed(response: httpx.Response, rules: list[Rule]) -> httpx.Response:
    body = _Body(response.stream, rules)
    for rule in rules:
        if isinstance(rule.fault, ContentType):
            response.headers["content-type"] = rule.fault.value
        elif isinstance(rule.fault, _CHANGE_LENGTH):
            response.headers.pop("content-length", None)
    return httpx.Response(
        response.status_code, headers=response.headers, stream=body, extensions=response.extensions
    )


class _Blanks(httpx.AsyncByteStream):
    """A body of white space."""

    def __init__(self, size: int) -> None:
        self._size = size

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, self._size, _CHUNK):
            yield b" " * min(_CHUNK, self._size - start)


class _Body(httpx.AsyncByteStream):
    """The body of a response, on its way through the rules in their order."""

    def __init__(self, inner: object, rules: list[Rule]) -> None:
        assert isinstance(inner, httpx.AsyncByteStream)  # noqa: S101 - an async transport's
        self._inner = inner
        self._rules = rules

    async def __aiter__(self) -> AsyncIterator[bytes]:
        pieces = aiter(self._inner)
        for rule in self._rules:
            pieces = _through(rule, pieces)
        async for piece in pieces:
            yield piece

    async def aclose(self) -> None:
        await self._inner.aclose()


def _through(rule: Rule, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    match rule.fault:
        case Disconnects(after_bytes):
            return _cut(pieces, after_bytes, breaks=True)
        case Truncates(after_bytes):
            return _cut(pieces, after_bytes, breaks=False)
        case SlowBody(seconds, piece):
            return _slowly(pieces, piece, lambda: draw_seconds(seconds, rule.random))
        case MalformedEvents(after_events):
            return _with_half_an_event(pieces, after_events)
        case StreamError(after_events, status):
            return _ending_in_an_error(pieces, after_events, status)
        case _:
            return pieces


async def _cut(pieces: AsyncIterator[bytes], after: int, *, breaks: bool) -> AsyncIterator[bytes]:
    left = after
    async for piece in pieces:
        if len(piece) >= left:
            yield piece[:left]
            break
        left -= len(piece)
        yield piece
    if breaks:
        raise httpx.RemoteProtocolError("injected by a fault plan: the peer closed the connection")


async def _slowly(
    pieces: AsyncIterator[bytes], size: int, pause: Callable[[], float]
) -> AsyncIterator[bytes]:
    async for piece in pieces:
        for start in range(0, len(piece), size):
            await anyio.sleep(pause())
            yield piece[start : start + size]


async def _events(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The events of a stream, each with the empty line that ends it; last, whatever has none."""
    rest = b""
    async for piece in pieces:
        rest += piece
        while (end := _END_OF_EVENT.search(rest)) is not None:
            yield rest[: end.end()]
            rest = rest[end.end() :]
    if rest:
        yield rest


async def _with_half_an_event(pieces: AsyncIterator[bytes], after: int) -> AsyncIterator[bytes]:
    number = 0
    async for event in _events(pieces):
        if number == after:
            yield event[: len(event) // 2] + b"\n\n"
        number += 1
        yield event


async def _ending_in_an_error(pieces: AsyncIterator[bytes], after: int, status: int) -> AsyncIterator[bytes]:
    number = 0
    async for event in _events(pieces):
        if number == after:
            break
        number += 1
        yield event
    yield b'data: {"error": {"message": "injected by a fault plan", "code": %d}}\n\n' % status
