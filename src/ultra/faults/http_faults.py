"""Faults of HTTP requests and responses, as rules. `ultra.faults.transport` and the provider inject them."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self

from ultra.errors import BadCall
from ultra.faults.rule_set import RuleSet
from ultra.faults.rules import Conditions, Fault, Hook, Seconds, check_retry_after, check_seconds

if TYPE_CHECKING:
    from typing import Unpack

__all__ = [
    "ConnectFails",
    "ContentType",
    "Disconnects",
    "HttpFaults",
    "HugeBody",
    "MalformedEvents",
    "ReadTimesOut",
    "SlowBody",
    "Status",
    "StreamError",
    "Truncates",
]


class _HttpFault(Fault, frozen=True):
    hook: ClassVar[Hook] = "http"


class _InPlaceOfServer(_HttpFault, frozen=True):
    @property
    def ends(self) -> bool:
        return True


class Status(_InPlaceOfServer, frozen=True):
    """The server answers with a status."""

    name: ClassVar[str] = "http_status"

    status: int
    retry_after: float | None = None
    body: bytes = b""


class ConnectFails(_InPlaceOfServer, frozen=True):
    """No connection can be made."""

    name: ClassVar[str] = "http_connect_error"


class ReadTimesOut(_InPlaceOfServer, frozen=True):
    """The server never answers."""

    name: ClassVar[str] = "http_read_timeout"


class HugeBody(_InPlaceOfServer, frozen=True):
    """The server sends a body that is far too large."""

    name: ClassVar[str] = "http_huge_body"

    size: int


class Disconnects(_HttpFault, frozen=True):
    """The connection breaks in the middle of the body."""

    name: ClassVar[str] = "http_disconnect"

    after_bytes: int


class Truncates(_HttpFault, frozen=True):
    """The body ends too early, without an error."""

    name: ClassVar[str] = "http_truncate"

    after_bytes: int


class SlowBody(_HttpFault, frozen=True):
    """The body comes in small pieces, with time between them."""

    name: ClassVar[str] = "http_slow_body"

    seconds: Seconds
    piece: int = 1


class MalformedEvents(_HttpFault, frozen=True):
    """An event of the stream is malformed."""

    name: ClassVar[str] = "http_malformed_events"

    after_events: int = 0


class StreamError(_HttpFault, frozen=True):
    """A stream that began well reports an error, and ends."""

    name: ClassVar[str] = "http_stream_error"

    after_events: int = 0
    status: int = 503


class ContentType(_HttpFault, frozen=True):
    """The response has a wrong content type."""

    name: ClassVar[str] = "http_content_type"

    value: str = "text/html"


class HttpFaults(RuleSet):
    """The methods that add rules about HTTP, for a `FaultyTransport` or a simulated provider.

    `url` is a pattern for whole URLs, with or without their query. The conditions are those of
    `Conditions`. Counts are bytes of the body as it is sent.
    """

    def http_status(
        self,
        url: str = "*",
        status: int = 503,
        *,
        retry_after: float | None = None,
        body: bytes = b"",
        **when: Unpack[Conditions],
    ) -> Self:
        """Answer with `status` and `body` instead of the server; `retry_after` [s] is sent as a header."""
        if type(status) is not int or not 200 <= status <= 599:  # noqa: PLR2004 - what httpx can make
            raise BadCall(f"status={status!r} is not allowed; give an HTTP status from 200 to 599")
        check_retry_after(retry_after)
        if not isinstance(body, bytes):
            raise BadCall(f"body={body!r} is not allowed; give bytes")
        return self._add(Status(status, retry_after, body), url, when)

    def http_connect_error(self, url: str = "*", **when: Unpack[Conditions]) -> Self:
        """Refuse the connection."""
        return self._add(ConnectFails(), url, when)

    def http_read_timeout(self, url: str = "*", **when: Unpack[Conditions]) -> Self:
        """Send nothing for as long as the request's own read timeout, and then time out."""
        return self._add(ReadTimesOut(), url, when)

    def http_disconnect(self, url: str = "*", *, after_bytes: int, **when: Unpack[Conditions]) -> Self:
        """Break the connection after this many bytes of the body."""
        return self._add(Disconnects(_checked_count("after_bytes", after_bytes)), url, when)

    def http_truncate(self, url: str = "*", *, after_bytes: int, **when: Unpack[Conditions]) -> Self:
        """End the body after this many bytes, as if it were whole."""
        return self._add(Truncates(_checked_count("after_bytes", after_bytes)), url, when)

    def http_slow_body(
        self, url: str = "*", *, seconds: Seconds, piece: int = 1, **when: Unpack[Conditions]
    ) -> Self:
        """Send the body in pieces of `piece` bytes, each after `seconds` or a time out of that range."""
        fault = SlowBody(check_seconds("seconds", seconds), _checked_count("piece", piece, least=1))
        return self._add(fault, url, when)

    def http_malformed_events(
        self, url: str = "*", *, after_events: int = 0, **when: Unpack[Conditions]
    ) -> Self:
        """Insert an event that is cut off in the middle into a stream, after this many whole ones.

        Streams are server-sent events and lines of JSON. Other responses are not changed.
        """
        return self._add(MalformedEvents(_checked_count("after_events", after_events)), url, when)

    def http_stream_error(
        self, url: str = "*", *, after_events: int = 0, status: int = 503, **when: Unpack[Conditions]
    ) -> Self:
        """Report an error inside a stream of status 200, after this many whole events, and end it.

        `status` is the status that the error would have outside of a stream. The simulated provider reports
        it in the words of the protocol.
        """
        if type(status) is not int or not 400 <= status <= 599:  # noqa: PLR2004 - HTTP's errors
            raise BadCall(f"status={status!r} is no failure; give an HTTP status from 400 to 599")
        return self._add(StreamError(_checked_count("after_events", after_events), status), url, when)

    def http_content_type(
        self, url: str = "*", *, value: str = "text/html", **when: Unpack[Conditions]
    ) -> Self:
        """Send another content type than that of the body."""
        return self._add(ContentType(_checked_header(value)), url, when)

    def http_huge_body(self, url: str = "*", *, size: int, **when: Unpack[Conditions]) -> Self:
        """Answer with a body of `size` bytes of white space."""
        return self._add(HugeBody(_checked_count("size", size, least=1)), url, when)


def _checked_header(value: object) -> str:
    if not isinstance(value, str) or not (value.isascii() and value.isprintable()):
        raise BadCall(f"value={value!r} is not allowed; give the text of a header")
    return value


def _checked_count(what: str, value: object, *, least: int = 0) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise BadCall(f"{what}={value!r} is not allowed; give a whole number, {least} or more")
    return value
