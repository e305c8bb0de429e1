"""Requests and answers in a form that is neutral between the protocols."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

import msgspec
import trio
from msgspec import Struct

from ultra.errors import BadCall
from ultra.messages.results import FinishReason
from ultra.messages.tools import Tool, ToolChoice

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "Answer",
    "Call",
    "Failure",
    "FailureKind",
    "Media",
    "MediaKind",
    "Message",
    "Outcome",
    "Question",
    "Reply",
    "Respond",
    "ToolResult",
    "WrittenCall",
]

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


MediaKind = Literal["image", "document"]


class Media(Struct, frozen=True):
    """An image or a document that a request holds: its bytes (`size`), or the address at which it is."""

    kind: MediaKind
    media_type: str | None = None
    size: int = 0
    url: str | None = None


class Call(Struct, frozen=True):
    """A call of a tool: of a request, or one that a reply is to make.

    `arguments` are an object, or text that is sent as it is, JSON or not. A reply's call without an `id` gets
    one.
    """

    name: str
    arguments: dict[str, Any] | str = {}
    id: str = ""

    @property
    def text(self) -> str:
        """The arguments as JSON."""
        if isinstance(self.arguments, str):
            return self.arguments
        return msgspec.json.encode(self.arguments).decode()


class ToolResult(Struct, frozen=True):
    """What a tool gave for the call of this `id`, and of this `name`, as far as the protocol tells them."""

    id: str = ""
    name: str = ""
    text: str = ""
    is_error: bool = False


class Message(Struct, frozen=True):
    """One turn of a conversation, its text parts joined, beside what else it holds.

    `media` are its images and documents, those of tool results too; `calls` those that an assistant made;
    `results` those of tools; `cached` says whether a part of it has a hint to be cached.
    """

    role: str
    text: str
    media: tuple[Media, ...] = ()
    calls: tuple[Call, ...] = ()
    results: tuple[ToolResult, ...] = ()
    cached: bool = False


class Question(Struct, frozen=True, kw_only=True):
    """What a request asks of a model.

    `messages` do not include the system prompt. `include_usage` says whether a stream reports its usage,
    `show_encrypted` whether reasoning comes encrypted, too (the Responses API), `schema` which JSON is asked
    for. `asked` is the request as it came, for the protocols that repeat it.
    """

    model: str
    messages: tuple[Message, ...]
    system: str = ""
    stream: bool = False
    include_usage: bool = True
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    tools: tuple[Tool, ...] = ()
    choice: ToolChoice = ToolChoice()
    schema: dict[str, Any] | None = None
    show_encrypted: bool = False
    asked: dict[str, Any] = {}

    @property
    def prompt(self) -> str:
        """The last message of the user that is not only the results of tools."""
        said = (each for each in reversed(self.messages) if each.role == "user")
        return next((each.text for each in said if each.text or not each.results), "")

    @property
    def images(self) -> tuple[Media, ...]:
        """The images of all messages, in their order."""
        return tuple(each for message in self.messages for each in message.media if each.kind == "image")

    @property
    def documents(self) -> tuple[Media, ...]:
        """The documents of all messages, in their order."""
        return tuple(each for message in self.messages for each in message.media if each.kind == "document")

    @property
    def results(self) -> tuple[ToolResult, ...]:
        """The results of tools that stand at the end: those that the model is to go on with."""
        found: list[ToolResult] = []
        for message in reversed(self.messages):
            if not message.results:
                break
            found[:0] = message.results
        return tuple(found)


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
    """An answer to give: text, calls of tools (`calls`), or both.

        Reply(calls=(Call("weather", {"city": "Rome"}), Call("time", {"city": "Rome"})))

    `text` may be a tuple: the pieces in which it is streamed. Otherwise the pieces are as large as tokens.
    `cached` tokens of the prompt count as read from the provider's cache. With `failure`, a stream reports
    that error after the text, and a request that does not stream gets only the error. With `hold`, a
    stream waits for the event after its first piece, and a plain answer waits before it is sent.

    ``refusal`` and ``content_filter`` look as they do in each protocol. Ollama's protocol has neither.
    """

    text: str | tuple[str, ...] = ""
    finish: FinishReason = "stop"
    reasoning: str = ""
    calls: tuple[Call, ...] = ()
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


class WrittenCall(Struct, frozen=True):
    """A call as an answer has it: `pieces` are its arguments, as large as tokens; a cut one is not `whole`.

    `id` is the one that the reply gave it; `key` that of no other call.
    """

    id: str
    key: str
    name: str
    pieces: tuple[str, ...]
    whole: bool = True

    def id_with(self, prefix: str) -> str:
        """Return the id of the call, which begins so unless the reply gave it."""
        return self.id or prefix + self.key

    @property
    def arguments(self) -> str:
        """The arguments as text."""
        return "".join(self.pieces)

    @property
    def object(self) -> dict[str, Any]:
        """The arguments as an object; what is none is its only field."""
        try:
            found = msgspec.json.decode(self.arguments or "{}")
        except msgspec.DecodeError:
            found = self.arguments
        return found if isinstance(found, dict) else {"arguments": found}


class Answer(Struct, frozen=True, kw_only=True):
    """A reply as one request gets it: cut to its limits, with its tokens counted.

    `input` counts every token of the prompt, including the `cached` ones, `media_tokens` those of its images
    and documents. `stop_sequence` is the one that ended the answer.
    """

    id: str
    model: str
    created: datetime
    pieces: tuple[str, ...]
    reasoning: tuple[str, ...]
    finish: FinishReason
    stop_sequence: str | None
    calls: tuple[WrittenCall, ...]
    input: int
    media_tokens: tuple[int, int]
    cached: int
    question: Question
    failure: Failure | None
    hold: trio.Event | None

    @property
    def include_usage(self) -> bool:
        """Whether a stream reports its usage."""
        return self.question.include_usage

    @property
    def whole_calls(self) -> tuple[WrittenCall, ...]:
        """The calls that were not cut, for protocols that send only whole ones."""
        return tuple(call for call in self.calls if call.whole)

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
        return len(self.pieces) + len(self.reasoning) + sum(map(call_tokens, self.calls))


def call_tokens(call: WrittenCall) -> int:
    """Count the tokens of a call: its name is one."""
    return 1 + len(call.pieces)


Outcome = Literal["open", "answered", "failed", "broken", "abandoned"]
"""How a request ended: with an answer, with an error, broken by a fault plan, or abandoned because the client
went away or the provider was stopped first."""
