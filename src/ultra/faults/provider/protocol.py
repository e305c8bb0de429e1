"""What every simulated protocol must be able to read and to write."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, NamedTuple, TypeAlias, TypeVar

import msgspec

from ultra.faults.provider.neutral import Failure

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from starlette.requests import Request

    from ultra.faults.provider.neutral import Answer, FailureKind, Question
    from ultra.faults.provider.rate_limits import LimitState

__all__ = [
    "Event",
    "Limit",
    "Protocol",
    "Refused",
    "Wording",
    "as_mapping",
    "convert",
    "event",
    "json",
    "page_size",
]

T = TypeVar("T")

_LARGEST_PAGE: Final = 1_000
_DIGITS: Final = 4

Limit: TypeAlias = Annotated[int, msgspec.Meta(ge=1)] | None
"""A limit of tokens, as requests give it."""

RELEASED: Final = 1_735_689_600  # when all simulated models came out, 2025-01-01 [s since 1970]


class Refused(Exception):
    """The request is not allowed by the protocol."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Wording(NamedTuple):
    """The status and the words of a protocol for one kind of failure."""

    status: int
    type: str
    message: str
    code: str | None = None


class Event(NamedTuple):
    """One event of a stream, and how many tokens the model generated for it."""

    data: bytes
    tokens: int = 0


class Protocol(ABC):
    """One provider's protocol. It has no state."""

    name: ClassVar[str]
    stream_type: ClassVar[str] = "text/event-stream; charset=utf-8"
    json_type: ClassVar[str] = "application/json"
    wordings: ClassVar[Mapping[FailureKind, Wording]]

    @abstractmethod
    def key(self, request: Request) -> str | None:
        """Return the key of a request, None if it has none."""

    def check_key(self, key: str | None, expected: str | None) -> Failure | None:
        """Return what is wrong with a key, None if nothing; `expected` None accepts any key."""
        if not key or (expected is not None and key != expected):
            return Failure("auth")
        return None

    @abstractmethod
    def read(self, request: Request, body: bytes) -> Question:
        """Read a request. Raises `Refused`."""

    @abstractmethod
    def whole(self, answer: Answer) -> Any:  # noqa: ANN401 - JSON
        """Return the body of an answer that is not streamed."""

    @abstractmethod
    def events(self, answer: Answer) -> Iterator[Event]:
        """Yield the events of an answer, to its end, or to the place where its failure is reported."""

    @abstractmethod
    def failure(self, failure: Failure, request_id: str) -> Any:  # noqa: ANN401 - JSON
        """Return the body that reports a failure."""

    @abstractmethod
    def failure_event(self, failure: Failure, request_id: str, number: int) -> bytes:
        """Return the event that reports a failure inside a stream, after `number` other events."""

    @abstractmethod
    def model(self, name: str) -> Any:  # noqa: ANN401 - JSON
        """Return the entry of one model in a list of models."""

    @abstractmethod
    def models(self, names: Sequence[str], query: Mapping[str, str]) -> Any:  # noqa: ANN401 - JSON
        """Return the list of models, or the page of it that `query` asks for. Raises `Refused`."""

    def headers(self, request_id: str, limits: Mapping[str, LimitState]) -> dict[str, str]:  # noqa: ARG002 - some say nothing
        """Return the headers of every response."""
        return {}

    def failure_headers(self, failure: Failure) -> dict[str, str]:
        """Return the further headers of a failure."""
        return {} if failure.retry_after is None else {"retry-after": f"{failure.retry_after:g}"}

    def wording(self, failure: Failure) -> Wording:
        """Return the status and the words of this protocol for `failure`."""
        usual = self.wordings[failure.meaning]
        return usual._replace(status=failure.status or usual.status, message=failure.message or usual.message)


def event(payload: object, name: str = "", end: bytes = b"\n") -> bytes:
    """Return a server-sent event."""
    first = b"event: " + name.encode() + end if name else b""
    return first + b"data: " + json(payload) + end + end


def json(payload: object) -> bytes:
    """Return `payload` as JSON."""
    return msgspec.json.encode(payload)


def as_mapping(body: bytes) -> dict[str, Any]:
    """Return a body that was decoded before, with all of its fields."""
    found = msgspec.json.decode(body)
    return found if isinstance(found, dict) else {}


def decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """Decode the body of a request. Raises `Refused`."""
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Refused(Failure("bad_request", message=f"The request cannot be read: {error}")) from error


def page_size(query: Mapping[str, str], name: str, *, default: int) -> int:
    """Return how many models of a list one page may have: 1 to 1000. Raises `Refused`."""
    given = query.get(name, str(default))
    number = int(given) if given.isascii() and given.isdigit() and len(given) <= _DIGITS else 0
    if not 1 <= number <= _LARGEST_PAGE:
        raise Refused(
            Failure("bad_request", message=f"{name}: {given!r} is not a number from 1 to {_LARGEST_PAGE}")
        )
    return number


def convert(found: object, kind: type[T]) -> T:
    """Return JSON that was decoded before as a `kind`. Raises `Refused`."""
    try:
        return msgspec.convert(found, kind)
    except msgspec.ValidationError as error:
        raise Refused(Failure("bad_request", message=f"The request cannot be read: {error}")) from error


def bearer(request: Request) -> str | None:
    """Return the key of the header ``Authorization: Bearer``, None if there is none."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    return key.strip() or None if scheme.lower() == "bearer" else None
