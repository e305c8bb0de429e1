"""Apply the HTTP faults of a plan to the response that the provider sends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import trio

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
from ultra.faults.provider.neutral import Failure
from ultra.faults.rules import draw_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from starlette.types import Send

    from ultra.faults.http_faults import HttpFaults
    from ultra.faults.rules import Rule

__all__ = ["FaultyResponse", "ResponseCut", "ResponseFaults"]

_STREAMS_ONLY: Final = (MalformedEvents, StreamError)


class ResponseCut(Exception):
    """The plan ends the response before its time.

    `looks_whole`: the body is to end as if it were whole. Otherwise the connection breaks.
    """

    def __init__(self, *, looks_whole: bool) -> None:
        super().__init__()
        self.looks_whole = looks_whole


class ResponseFaults:
    """The faults that the rules of a plan have for one response.

    `replacement` is what takes the place of the answer, if anything does.
    """

    def __init__(self) -> None:
        self.replacement: Status | HugeBody | ReadTimesOut | None = None
        self.content_type: str | None = None
        self.cut_after: int | None = None  # [bytes of the body]
        self.breaks = False  # the connection, where the body is cut
        self.malformed_after: int | None = None  # [events]
        self.fails_after: int | None = None  # [events]
        self.failure: Failure | None = None
        self.piece: int | None = None  # [bytes]
        self.pause: Callable[[], float] = float  # 0

    @classmethod
    def draw(cls, plan: HttpFaults | None, url: str, *, stream: bool) -> ResponseFaults:
        """Decide which faults `plan` has for a request to `url`; `stream` says whether it asks for events."""
        drawn = cls()
        if plan is None:
            return drawn
        rules = [
            rule
            for rule in plan._rules_for("http", url)  # noqa: SLF001 - a part of the plan
            if not isinstance(rule.fault, ConnectFails)
            and (stream or not isinstance(rule.fault, _STREAMS_ONLY))
        ]
        for rule in plan._fired(rules):  # noqa: SLF001 - as above
            drawn._take(rule)
            plan._record(rule, url)  # noqa: SLF001 - as above
        return drawn

    def _take(self, rule: Rule) -> None:
        match rule.fault:
            case Status() | HugeBody() | ReadTimesOut() as fault:
                self.replacement = fault
            case Disconnects(after_bytes):
                self.cut_after, self.breaks = after_bytes, True
            case Truncates(after_bytes):
                self.cut_after, self.breaks = after_bytes, False
            case SlowBody(seconds, piece):
                self.piece = piece
                self.pause = lambda: draw_seconds(seconds, rule.random)
            case MalformedEvents(after_events):
                self.malformed_after = after_events
            case StreamError(after_events, status):
                self.fails_after, self.failure = after_events, Failure(status=status)
            case ContentType(value):
                self.content_type = value

    @property
    def changes_length(self) -> bool:
        """Whether the body ends too early and must not show it."""
        return self.cut_after is not None and not self.breaks


class FaultyResponse:
    """Sends one response over ASGI, with its faults.

    Each method may raise `ResponseCut`: then nothing more is to be sent. If the body is not ended, the
    server closes the connection.
    """

    def __init__(self, send: Send, faults: ResponseFaults) -> None:
        self._send = send
        self.faults = faults
        self._events = 0
        self._sent = 0  # [bytes of the body]

    async def start(self, status: int, headers: dict[str, str], length: int | None = None) -> None:
        """Send the status and the headers; `length` is that of the whole body [bytes], None if unknown."""
        if length is not None and not self.faults.changes_length:
            headers = {**headers, "content-length": str(length)}
        if self.faults.content_type is not None:
            headers = {**headers, "content-type": self.faults.content_type}
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})
        await self._write(b"")

    async def send_event(self, data: bytes) -> None:
        """Send one whole event of a stream."""
        if self._events == self.faults.malformed_after:
            blank = data[len(data.rstrip()) :]
            await self._write(data.rstrip()[:-1] + blank)
        self._events += 1
        await self._write(data)

    async def send(self, data: bytes) -> None:
        """Send a part of the body."""
        await self._write(data)

    async def end(self) -> None:
        """End the body."""
        await self._send_body(b"", more=False)

    async def _write(self, data: bytes) -> None:
        limit = self.faults.cut_after
        kept = data if limit is None else data[: limit - self._sent]
        for piece in _cut(kept, self.faults.piece):
            if self.faults.piece is not None:
                await trio.sleep(self.faults.pause())
            await self._send_body(piece, more=True)
        self._sent += len(kept)
        if self._sent == limit:
            raise ResponseCut(looks_whole=not self.faults.breaks)

    async def _send_body(self, data: bytes, *, more: bool) -> None:
        message: dict[str, Any] = {"type": "http.response.body", "body": data, "more_body": more}
        await self._send(message)


def _cut(data: bytes, size: int | None) -> Iterator[bytes]:
    size = size or max(len(data), 1)
    return (data[start : start + size] for start in range(0, len(data), size))
