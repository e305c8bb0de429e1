"""A transport for httpx that injects the HTTP faults of a plan, around a real or an in-memory one."""

from __future__ import annotations

import re
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple, Self

import anyio
import httpx

from ultra.errors import BadCall
from ultra.faults.http_faults import (
    ConnectFails,
    ContentType,
    Disconnects,
    HttpFaults,
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

    from ultra.faults.rules import Rule

__all__ = ["FaultyTransport"]

_CHUNK: Final = 65_536
_CHANGE_LENGTH: Final = (Disconnects, Truncates, MalformedEvents, StreamError)
_READ_EVENTS: Final = (MalformedEvents, StreamError)
_FILTERED: Final = (*_CHANGE_LENGTH, SlowBody)


class _Framing(NamedTuple):
    """How events are separated in a stream, and how an error looks in it."""

    end: re.Pattern[bytes]
    separator: bytes
    error: bytes


_FRAMINGS: Final = {
    "text/event-stream": _Framing(
        re.compile(rb"\r\n\r\n|\n\n|\r\r"),
        b"\n\n",
        b'data: {"error": {"message": "injected by a fault plan", "code": %d}}\n\n',
    ),
    "application/x-ndjson": _Framing(
        re.compile(rb"\n"), b"\n", b'{"error": "injected by a fault plan: status %d"}\n'
    ),
}


class FaultyTransport(httpx.AsyncBaseTransport):
    """A transport to give to a client: ``httpx.AsyncClient(transport=FaultyTransport(plan))``.

    The HTTP rules of `plan` apply to requests by their URL, with its query or without. Other requests go
    to `transport`: the network by default, or an `httpx.MockTransport` or `httpx.ASGITransport` in memory.
    Closing this transport closes that one. It runs on trio and on asyncio, and raises httpx's own errors,
    as a real network does.

    Raises:
        BadCall: `plan` is no fault plan, or `transport` is no transport for async clients.
    """

    def __init__(self, plan: HttpFaults, transport: httpx.AsyncBaseTransport | None = None) -> None:
        if not isinstance(plan, HttpFaults):
            raise BadCall(f"the plan is {plan!r}; it must be a FaultPlan")
        if transport is not None and not isinstance(transport, httpx.AsyncBaseTransport):
            raise BadCall(f"the transport is {transport!r}; it must be one for async clients, or None")
        self._plan = plan
        self._transport = transport or httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer `request`, or fail as the plan says."""
        shown = str(request.url.copy_with(userinfo=b"", query=None))  # without parts that may hold a key
        rules = self._plan._rules_for("http", str(request.url), shown)  # noqa: SLF001 - two parts of one plan
        about_events = [rule for rule in rules if isinstance(rule.fault, _READ_EVENTS)]
        fired = self._fired([rule for rule in rules if rule not in about_events], shown)
        if fired and fired[-1].fault.ends:
            response = await _in_place_of_server(fired.pop(), request)
        else:
            if about_events:
                request.headers["accept-encoding"] = "identity"  # compressed events cannot be recognised
            response = await self._transport.handle_async_request(request)
            if _framing(response) is not None:  # elsewhere there are no events
                fired += self._fired(about_events, shown)
        return _disturbed(response, sorted(fired, key=_number)) if fired else response

    def _fired(self, rules: list[Rule], where: str) -> list[Rule]:
        """Return those of `rules` that are to be injected now, and record the injections."""
        fired = self._plan._fired(rules)  # noqa: SLF001 - two parts of one plan
        for rule in fired:
            self._plan._record(rule, where)  # noqa: SLF001 - as above
        return fired

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


def _framing(response: httpx.Response) -> _Framing | None:
    """Return the framing of the body's events, None if the body has no events."""
    return _FRAMINGS.get(response.headers.get("content-type", "").partition(";")[0].strip().lower())


def _number(rule: Rule) -> int:
    return rule.number


def _disturbed(response: httpx.Response, rules: list[Rule]) -> httpx.Response:
    body = _Body(response.stream, rules, _framing(response))
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
    """The body of a response, changed by the rules in their order.

    An iterator rather than a generator: when a reader stops early, nothing is left to be finalized.
    """

    def __init__(self, inner: object, rules: list[Rule], framing: _Framing | None) -> None:
        assert isinstance(inner, httpx.AsyncByteStream)  # noqa: S101 - an async transport's
        self._inner = inner
        self._pieces: AsyncIterator[bytes] = aiter(inner)
        self._filters = [_filter(rule, framing) for rule in rules if isinstance(rule.fault, _FILTERED)]
        self._pauses = [_pause(rule) for rule in rules if isinstance(rule.fault, SlowBody)]
        self._ready: deque[bytes] = deque()
        self._over = False
        self._closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._closed:
            raise httpx.StreamClosed
        while not self._ready:
            if self._over:
                raise self._end()
            self._advance(await anext(self._pieces, None))
        for pause in self._pauses:
            await anyio.sleep(pause())
        return self._ready.popleft()

    async def aclose(self) -> None:
        self._closed = True
        close = getattr(self._pieces, "aclose", None)
        if close is not None:
            await close()
        await self._inner.aclose()

    def _advance(self, piece: bytes | None) -> None:
        """Take the next piece of the inner body, None at its end."""
        pieces = [] if piece is None else [piece]
        self._over = piece is None
        for stage in self._filters:
            passed = [out for taken in pieces for out in stage.push(taken)]
            if self._over:
                passed += stage.end()
            self._over = self._over or stage.over
            pieces = passed
        self._ready.extend(pieces)

    def _end(self) -> Exception:
        return next((stage.error for stage in self._filters if stage.error is not None), StopAsyncIteration())


class _Filter:
    """Changes the pieces of a body as a rule says. When it is `over`, the body ends, with `error` if set."""

    over = False
    error: Exception | None = None

    def push(self, piece: bytes) -> list[bytes]:
        """Return the pieces to send in place of one piece."""
        return [piece]

    def end(self) -> list[bytes]:
        """Return the pieces to send after the end of the inner body."""
        return []


class _Cut(_Filter):
    """Ends the body after some bytes."""

    def __init__(self, size: int, *, breaks: bool) -> None:
        self._left = size
        self._breaks = breaks

    def push(self, piece: bytes) -> list[bytes]:
        passed = piece[: self._left]
        self._left -= len(passed)
        if not self._left and not self.over:
            self.over = True
            if self._breaks:
                self.error = httpx.RemoteProtocolError(
                    "injected by a fault plan: the peer closed the connection"
                )
        return [passed] if passed else []


class _Chop(_Filter):
    """Splits the body into small pieces."""

    def __init__(self, size: int) -> None:
        self._size = size

    def push(self, piece: bytes) -> list[bytes]:
        return [piece[start : start + self._size] for start in range(0, len(piece), self._size)]


class _Events(_Filter):
    """Splits the body into events, each with its separator."""

    def __init__(self, framing: _Framing, after: int) -> None:
        self._framing = framing
        self._after = after
        self._number = 0
        self._rest = b""

    def push(self, piece: bytes) -> list[bytes]:
        self._rest += piece
        passed: list[bytes] = []
        while not self.over and (end := self._framing.end.search(self._rest)) is not None:
            event, self._rest = self._rest[: end.end()], self._rest[end.end() :]
            passed += self._at_its_turn(event) if self._number == self._after else [event]
            self._number += 1
        return passed

    def end(self) -> list[bytes]:
        return [self._rest] if self._rest else []

    def _at_its_turn(self, event: bytes) -> list[bytes]:
        raise NotImplementedError


class _HalfAnEvent(_Events):
    """Inserts half an event before a whole one."""

    def _at_its_turn(self, event: bytes) -> list[bytes]:
        return [event[: len(event) // 2] + self._framing.separator, event]


class _ErrorEvent(_Events):
    """Replaces an event by an error, and ends the body."""

    def __init__(self, framing: _Framing, after: int, status: int) -> None:
        super().__init__(framing, after)
        self._status = status

    def _at_its_turn(self, event: bytes) -> list[bytes]:  # noqa: ARG002 - it is replaced
        self.over = True
        return [self._framing.error % self._status]


def _filter(rule: Rule, framing: _Framing | None) -> _Filter:
    match rule.fault:
        case Disconnects(after_bytes):
            return _Cut(after_bytes, breaks=True)
        case Truncates(after_bytes):
            return _Cut(after_bytes, breaks=False)
        case SlowBody(_, piece):
            return _Chop(piece)
        case MalformedEvents(after_events) if framing is not None:
            return _HalfAnEvent(framing, after_events)
        case StreamError(after_events, status) if framing is not None:
            return _ErrorEvent(framing, after_events, status)
        case other:
            raise AssertionError(f"{other.name} does not change the body")


def _pause(rule: Rule) -> Callable[[], float]:
    fault = rule.fault
    assert isinstance(fault, SlowBody)  # noqa: S101 - so it was chosen
    return lambda: draw_seconds(fault.seconds, rule.random)
