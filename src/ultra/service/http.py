"""A request and its reply, as the core of the service sees them: no framework, no socket."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from ultra.service.access import Caller
    from ultra.service.quotas import Place

__all__ = ["EVENT_STREAM", "JSON", "Reply", "Request", "json_reply"]

JSON: Final = "application/json"
EVENT_STREAM: Final = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache, no-transform",
    "x-accel-buffering": "no",
}
"""The headers of an event stream; the last one tells nginx to pass on each event at once."""

_encode: Final = msgspec.json.Encoder().encode


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request, whole. `headers` have names in lower case; `peer` is the address of the client.

    `path` is decoded, and without the query, which `query` has as it was sent. `caller`: who sends it, once
    that is known; `place`: that of the request among those of its key at once, once it has one.
    """

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    peer: str | None = None
    caller: Caller | None = None
    query: str = ""
    place: Place | None = None


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What is answered: `body` is whole, or an iterator of what is sent piece by piece."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | AsyncIterator[bytes] = b""


def json_reply(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """Return a reply whose body is `value` as JSON."""
    return Reply(status=status, headers={"content-type": JSON, **(headers or {})}, body=_encode(value))
