"""What a fault plan does to one response on its way out."""

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
from ultra.faults.provider.exchange import Failure
from ultra.faults.rules import draw_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from starlette.types import Send

    from ultra.faults.http_faults import HttpFaults
    from ultra.faults.rules import Rule

__all__ = ["CutOff", "Disturbance", "Transmission"]

_STREAMS_ONLY: Final = (MalformedEvents, StreamError)


class CutOff(Exception):
    """The response is over before its time, as the plan wanted; `ends`: as if it were whole."""

    def __init__(self, *, ends: bool) -> None:
        super().__init__()
        self.ends = ends


class Disturbance:
    """The faults that the rules of a plan have for one exchange.

    `instead` is what takes the place of the answer, if anything does.
    """

    def __init__(self) -> None:
        self.instead: Status | HugeBody | ReadTimesOut | None = None
        self.content_type: str | None = None
        self.cut_after: int | None = None  # [bytes of the body]
        self.breaks = False  # the connection, where the body is cut
        self.malformed_after: int | None = None  # [events]
        self.fails_after: int | None = None  # [events]
        self.failure: Failure | None = None
        self.piece: int | None = None  # [bytes]
        self.pause: Callable[[], float] = float  # 0

    @classmethod
    def draw(cls, plan: HttpFaults | None, url: str, *, stream: bool) -> Disturbance:
        """What `plan` has for the exchange at `url`; `stream` says whether events were asked for."""
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
                self.instead = fault
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
        """Whether the body is to end sooner without being seen to."""
        return self.cut_after is not None and not self.breaks


class Transmission:
    """Sends one response over ASGI, disturbed. Each method may raise `CutOff`, after which all is done.

    A body that was broken off lacks what HTTP ends it with, and the server closes the connection.
    """

    def __init__(self, send: Send, disturbance: Disturbance) -> None:
        self._send = send
        self.disturbance = disturbance
        self._events = 0
        self._sent = 0  # [bytes of the body]

    async def start(self, status: int, headers: dict[str, str], length: int | None = None) -> None:
        """Send the head; a `length` [bytes] is that of the whole body, if it is known."""
        if length is not None and not self.disturbance.changes_length:
            headers = {**headers, "content-length": str(length)}
        if self.disturbance.content_type is not None:
            headers = {**headers, "content-type": self.disturbance.content_type}
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})
        await self._write(b"")

    async def send_event(self, data: bytes) -> None:
        """Send one whole event of a stream."""
        if self._events == self.disturbance.malformed_after:
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
        limit = self.disturbance.cut_after
        kept = data if limit is None else data[: limit - self._sent]
        for piece in _cut(kept, self.disturbance.piece):
            if self.disturbance.piece is not None:
                await trio.sleep(self.disturbance.pause())
            await self._send_body(piece, more=True)
        self._sent += len(kept)
        if self._sent == limit:
            raise CutOff(ends=not self.disturbance.breaks)

    async def _send_body(self, data: bytes, *, more: bool) -> None:
        message: dict[str, Any] = {"type": "http.response.body", "body": data, "more_body": more}
        await self._send(message)


def _cut(data: bytes, size: int | None) -> Iterator[bytes]:
    size = size or max(len(data), 1)
    return (data[start : start + size] for start in range(0, len(data), size))
