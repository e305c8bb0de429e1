"""OpenAI's Responses API, for the models that have no other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from msgspec import Raw, Struct

from ultra.clients.dialects.base import Dialect, apart, messages_of
from ultra.clients.dialects.decoders import EventDecoder
from ultra.clients.dialects.tolerant import ABSENT, TolerantDecoder, value_of
from ultra.clients.dialects.usage import Count, read_usage
from ultra.messages.results import Completion, Usage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ultra.clients.options import CallOptions
    from ultra.clients.wire.response_head import ResponseHead
    from ultra.messages.request import ModelRequest
    from ultra.messages.results import FinishReason

__all__ = ["OpenAIResponses"]

_INCOMPLETE: Final[Mapping[str, FinishReason]] = {
    "max_output_tokens": "length",
    "content_filter": "content_filter",
}

_BROKEN_OFF: Final = ("failed", "cancelled")


class _Part(Struct):
    """A part of a message, or of reasoning or its summary."""

    type: str = ""
    text: str | None = None
    refusal: str | None = None


class _Item(Struct):
    type: str = "message"
    content: list[_Part] | None = None
    summary: list[_Part] | None = None


class _Incomplete(Struct):
    reason: str | None = None


class _Answer(Struct):
    """The response object: a whole answer, or the last of a streamed one."""

    id: str | None = None
    status: str | None = None
    model: str | None = None
    output: list[_Item] | None = None
    usage: Raw = ABSENT
    error: Raw = ABSENT
    incomplete_details: _Incomplete | None = None


class _Event(Struct):
    type: str = ""
    delta: str | None = None
    response: _Answer | None = None
    error: Raw = ABSENT


class _InputDetails(Struct):
    cached_tokens: Count = None


class _OutputDetails(Struct):
    reasoning_tokens: Count = None


class _Usage(Struct):
    input_tokens: Count = None
    output_tokens: Count = None
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None

    def normalized(self) -> Usage:
        """Return the counts in the sense of `Usage`; reasoning is in the output."""
        return Usage(
            input=self.input_tokens,
            output=self.output_tokens,
            cached=self.input_tokens_details.cached_tokens if self.input_tokens_details else None,
            reasoning=self.output_tokens_details.reasoning_tokens if self.output_tokens_details else None,
        )


class _Assembly:
    """One answer put together from one object or from many events."""

    def __init__(self, head: ResponseHead) -> None:
        self._head = head
        self.texts: list[str] = []
        self.thoughts: list[str] = []
        self.refusals: list[str] = []
        self._answer: _Answer | None = None

    @property
    def finished(self) -> bool:
        """Whether the model has said that it is done."""
        return self._answer is not None and self._answer.status in {"completed", "incomplete"}

    def add(self, answer: _Answer) -> str:
        """Add a response object and return the text that is new in it. Raises `ModelError` if it failed."""
        error = value_of(answer.error)
        if error or answer.status in _BROKEN_OFF:
            reason = error or f"the model broke off: {answer.status}"
            raise self._head.failure_inside({"error": reason})
        self._answer = answer
        if self.texts or self.refusals:  # the last event repeats the whole text
            return ""
        said: list[str] = []
        for item in answer.output or ():
            parts = item.content or []
            if item.type == "message":
                said += [part.text or "" for part in parts if part.type == "output_text"]
                self.refusals += [part.refusal or "" for part in parts if part.type == "refusal"]
            elif item.type == "reasoning" and not self.thoughts:
                self.thoughts += [part.text or "" for part in (*(item.summary or ()), *parts)]
        self.texts += said
        return "".join(said)

    def completion(self) -> Completion:
        """Return what has been put together."""
        answer = self._answer or _Answer()
        return Completion(
            content="".join(self.texts),
            usage=read_usage(value_of(answer.usage), _Usage),
            finish_reason=self._finish(answer),
            request_id=self._head.request_id or answer.id,
            model=answer.model,
            reasoning="".join(self.thoughts) or None,
            refusal="".join(self.refusals) or None,
        )

    def _finish(self, answer: _Answer) -> FinishReason | None:
        if answer.status == "incomplete":
            details = answer.incomplete_details or _Incomplete()
            return _INCOMPLETE.get(details.reason or "", "length")
        if any(self.refusals):
            return "refusal"
        if any(item.type == "function_call" for item in answer.output or ()):
            return "tool_calls"
        return "stop" if answer.status == "completed" else None


_read_answer = TolerantDecoder(_Answer)
_read_event = TolerantDecoder(_Event)


class _EventsDecoder(EventDecoder):
    """Named events from ``response.created`` to ``response.completed``; types that are not known pass by."""

    def __init__(self, head: ResponseHead) -> None:
        super().__init__(head)
        self._assembly = _Assembly(head)

    def read(self, name: str, data: bytes) -> str:
        """Return the text in one event. Raises `ModelError`."""
        event = self.head.read(_read_event, data)
        kind = event.type or name
        error = value_of(event.error)
        if kind == "error" or error or (not kind.startswith("response.") and self.head.reports_failure(data)):
            raise self.head.failure_inside({"error": error} if error else data)
        delta = event.delta or ""
        match kind:
            case "response.output_text.delta":
                self._assembly.texts.append(delta)
                return delta
            case "response.refusal.delta":
                self._assembly.refusals.append(delta)
            case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta":
                self._assembly.thoughts.append(delta)
            case "response.completed" | "response.incomplete" | "response.failed":
                text = self._assembly.add(event.response or _Answer())
                self.finished = self.terminated = self._assembly.finished
                return text
        return ""

    def completion(self) -> Completion:
        """Return the whole answer. Raises `ModelError` if the last event was not seen."""
        self.check_end()
        return self._assembly.completion()


class OpenAIResponses(Dialect):
    """``POST {base_url}/responses``. `base_url` ends in the version.

    There are no stop texts and no seed. The provider is asked to keep nothing (``store: false``).
    """

    stream_decoder = _EventsDecoder

    def headers(self, api_key: str) -> dict[str, str]:
        """Return the header of the key, if there is one."""
        return {"authorization": f"Bearer {api_key}"} if api_key else {}

    def url(self, *, stream: bool) -> str:  # noqa: ARG002 - one address for both
        """Return the address of the responses."""
        return f"{self.base_url}/responses"

    def encode(self, request: ModelRequest, options: CallOptions, *, stream: bool) -> dict[str, Any]:
        """Return the JSON of `request`."""
        system, messages = apart(messages_of(request, options))
        effort = options.reasoning_effort
        return {
            "model": self.model,
            "instructions": system,
            "input": [{"role": message.role, "content": message.text} for message in messages],
            "temperature": options.temperature,
            "top_p": options.top_p,
            "max_output_tokens": options.max_tokens,
            "reasoning": {"effort": effort} if effort else None,
            "store": False,
            "stream": True if stream else None,
        }

    def decode(self, content: bytes, head: ResponseHead) -> Completion:
        """Return the plain answer. Raises `ModelError`."""
        answer = head.read(_read_answer, content)
        assembly = _Assembly(head)
        assembly.add(answer)
        if answer.output is None:
            raise head.failure_inside(content)
        return assembly.completion()
