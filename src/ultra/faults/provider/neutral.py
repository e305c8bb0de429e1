"""Requests and answers in a form that is neutral between the protocols."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

import trio
from msgspec import Struct

from ultra.errors import BadCall
from ultra.messages.results import FinishReason

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Answer", "Failure", "FailureKind", "Message", "Outcome", "Question", "Reply", "Respond"]

FailureKind = Literal[
    "bad_request",
    "auth",
    "permission",
    "quota",
    "not_found",
    "too_large",
    "rate_limit",
    "timeout",
    "server",
    "overloaded",
]
"""What went wrong. Each protocol has its own status and words for it."""

_KIND_OF_STATUS: Final[Mapping[int, FailureKind]] = {
    401: "auth",
    402: "quota",
    403: "permission",
    404: "not_found",
    408: "timeout",
    413: "too_large",
    429: "rate_limit",
    503: "overloaded",
    504: "timeout",
    529: "overloaded",
}


_FINISHES: Final = ("stop", "length", "content_filter", "refusal")


class Message(Struct, frozen=True):
    """One turn of a conversation, its text parts joined."""

    role: str
    text: str


class Question(Struct, frozen=True, kw_only=True):
    """What a request asks of a model.

    `messages` do not include the system prompt. `include_usage` says whether a stream reports its usage.
    """

    model: str
    messages: tuple[Message, ...]
    system: str = ""
    stream: bool = False
    include_usage: bool = True
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None

    @property
    def prompt(self) -> str:
        """The last message of the user."""
        return next((each.text for each in reversed(self.messages) if each.role == "user"), "")


class Failure(Struct, frozen=True):
    """An error, sent in the words of the protocol that the request uses.

    Give a `kind`, a `status`, or both: the one decides the other, and ``Failure()`` is a 500. `message`
    replaces the provider's usual words. `retry_after` [s] is sent if the protocol has a place for it.
    """

    kind: FailureKind | None = None
    status: int | None = None
    message: str = ""
    retry_after: float | None = None

    def __post_init__(self) -> None:
        if self.kind is not None and self.kind not in get_args(FailureKind):
            raise BadCall(
                f"kind={self.kind!r} is unknown; it must be one of {', '.join(get_args(FailureKind))}"
            )
        if self.status is not None and (type(self.status) is not int or not 400 <= self.status <= 599):  # noqa: PLR2004 - HTTP's errors
            raise BadCall(f"status={self.status!r} is no failure; give an HTTP status from 400 to 599")
        if self.retry_after is not None and not self.retry_after >= 0:
            raise BadCall(f"retry_after={self.retry_after!r} is not allowed; give seconds, 0 or more")

    @property
    def meaning(self) -> FailureKind:
        """The kind, derived from the status if none was given."""
        if self.kind is not None:
            return self.kind
        if self.status is None or self.status >= 500:  # noqa: PLR2004 - the server's errors
            return _KIND_OF_STATUS.get(self.status or 500, "server")
        return _KIND_OF_STATUS.get(self.status, "bad_request")


class Reply(Struct, frozen=True):
    """An answer to give.

    `text` may be a tuple: the pieces in which it is streamed. Otherwise the pieces are as large as tokens.
    `cached` tokens of the prompt count as read from the provider's cache. With `failure`, a stream reports
    that error after the text, and a request that does not stream gets only the error. With `hold`, a
    stream waits for the event after its first piece, and a plain answer waits before it is sent.

    ``refusal`` and ``content_filter`` look as they do in each protocol. Ollama's protocol has neither.
    """

    text: str | tuple[str, ...]
    finish: FinishReason = "stop"
    reasoning: str = ""
    cached: int = 0
    failure: Failure | None = None
    hold: trio.Event | None = None

    def __post_init__(self) -> None:
        allowed = ("stop", "length", "content_filter", "refusal")
        if self.finish not in allowed:
            raise BadCall(
                f"finish={self.finish!r} cannot be simulated; it must be one of {', '.join(allowed)}"
            )


Respond: TypeAlias = "Callable[[Question], Reply | Failure | str]"
"""A function that decides what is answered."""


class Answer(Struct, frozen=True, kw_only=True):
    """A reply as one request gets it: cut to its limits, with its tokens counted.

    `input` counts every token of the prompt, including the `cached` ones. `stop_sequence` is the one
    that ended the answer.
    """

    id: str
    model: str
    created: datetime
    pieces: tuple[str, ...]
    reasoning: tuple[str, ...]
    finish: FinishReason
    stop_sequence: str | None
    input: int
    cached: int
    include_usage: bool
    failure: Failure | None
    hold: trio.Event | None

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(self.pieces)

    @property
    def thought(self) -> str:
        """The whole reasoning."""
        return "".join(self.reasoning)

    @property
    def output(self) -> int:
        """Generated tokens, reasoning included."""
        return len(self.pieces) + len(self.reasoning)


Outcome = Literal["open", "answered", "failed", "broken", "abandoned"]
"""How a request ended: with an answer, with an error, broken by a fault plan, or abandoned because the client
went away or the provider was stopped first."""
