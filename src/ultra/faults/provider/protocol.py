"""What every simulated protocol has to be able to say."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, NamedTuple, TypeAlias, TypeVar

import msgspec

from ultra.faults.provider.exchange import Failure

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from starlette.requests import Request

    from ultra.faults.provider.allowance import Level
    from ultra.faults.provider.exchange import Answer, FailureKind, Question

__all__ = ["Event", "Limit", "Protocol", "Refused", "Wording", "event", "json"]

T = TypeVar("T")

Limit: TypeAlias = Annotated[int, msgspec.Meta(ge=1)] | None
"""A limit of tokens, as requests give it."""

RELEASED: Final = 1_735_689_600  # when all simulated models came out, 2025-01-01 [s since 1970]


class Refused(Exception):
    """The request was not what the protocol allows."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Wording(NamedTuple):
    """How a protocol speaks of one kind of failure."""

    status: int
    type: str
    message: str
    code: str | None = None


class Event(NamedTuple):
    """A piece of a stream, whole in itself, and how many tokens the model took to make it."""

    data: bytes
    tokens: int = 0


class Protocol(ABC):
    """One provider's way to ask and to answer. It has no state."""

    name: ClassVar[str]
    stream_type: ClassVar[str] = "text/event-stream; charset=utf-8"
    json_type: ClassVar[str] = "application/json"
    wordings: ClassVar[Mapping[FailureKind, Wording]]

    @abstractmethod
    def key(self, request: Request) -> str | None:
        """The key that a request carries, None if none."""

    def check_key(self, key: str | None, expected: str | None) -> Failure | None:
        """Say what is wrong with a key; `expected` None takes any."""
        if not key or (expected is not None and key != expected):
            return Failure("auth")
        return None

    @abstractmethod
    def read(self, request: Request, body: bytes) -> Question:
        """Read what is asked. Raises `Refused`."""

    @abstractmethod
    def whole(self, answer: Answer) -> Any:  # noqa: ANN401 - JSON
        """The body of an answer that is not streamed."""

    @abstractmethod
    def events(self, answer: Answer) -> Iterator[Event]:
        """Stream an answer, to its end or to where its failure is to be told."""

    @abstractmethod
    def failure(self, failure: Failure, request_id: str) -> Any:  # noqa: ANN401 - JSON
        """The body that tells of a failure."""

    @abstractmethod
    def failure_event(self, failure: Failure, request_id: str) -> bytes:
        """Tell of a failure inside a stream."""

    @abstractmethod
    def model(self, name: str) -> Any:  # noqa: ANN401 - JSON
        """One model in a list of models."""

    @abstractmethod
    def models(self, names: Sequence[str]) -> Any:  # noqa: ANN401 - JSON
        """The list of models."""

    def headers(self, request_id: str, levels: Mapping[str, Level]) -> dict[str, str]:  # noqa: ARG002 - some say nothing
        """What the headers of every response say."""
        return {}

    def failure_headers(self, failure: Failure) -> dict[str, str]:
        """What the headers say about a failure besides."""
        return {} if failure.retry_after is None else {"retry-after": f"{failure.retry_after:g}"}

    def wording(self, failure: Failure) -> Wording:
        """How this protocol speaks of `failure`."""
        usual = self.wordings[failure.meaning]
        return usual._replace(status=failure.status or usual.status, message=failure.message or usual.message)


def event(payload: object, name: str = "", end: bytes = b"\n") -> bytes:
    """A server-sent event."""
    first = b"event: " + name.encode() + end if name else b""
    return first + b"data: " + json(payload) + end + end


def json(payload: object) -> bytes:
    """`payload` as JSON."""
    return msgspec.json.encode(payload)


def decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """Decode the body of a request. Raises `Refused`."""
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Refused(Failure("bad_request", message=f"The request cannot be read: {error}")) from error


def bearer(request: Request) -> str | None:
    """The key behind ``Authorization: Bearer``."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    return key.strip() or None if scheme.lower() == "bearer" else None
