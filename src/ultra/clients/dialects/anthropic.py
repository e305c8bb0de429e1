"""Anthropic's Messages API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from msgspec import Raw, Struct

from ultra.clients.dialects.base import Dialect, apart, messages_of
from ultra.clients.dialects.decoders import EventDecoder
from ultra.clients.dialects.tolerant import ABSENT, TolerantDecoder, value_of
from ultra.clients.dialects.usage import Count, read_usage
from ultra.clients.wire.addresses import without_endings
from ultra.messages.results import Completion, Usage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ultra.clients.options import CallOptions
    from ultra.clients.wire.response_head import ResponseHead
    from ultra.messages.request import ModelRequest
    from ultra.messages.results import FinishReason

__all__ = ["AnthropicMessages"]

_VERSION: Final = "2023-06-01"

_MAX_TOKENS: Final = 4096  # the API requires a number, and every model allows this one

_FINISH: Final[Mapping[str, FinishReason]] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "length",  # the turn goes on when it is asked to
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "refusal",
}


class _Block(Struct):
    """One block of content, or a piece of one."""

    type: str = ""
    text: str | None = None
    thinking: str | None = None

    @property
    def answer(self) -> str:
        """The block's part of the answer."""
        return self.text or "" if self.type in {"text", "text_delta"} else ""

    @property
    def thought(self) -> str:
        """The block's part of the reasoning."""
        return self.thinking or "" if self.type in {"thinking", "thinking_delta"} else ""


class _StopDetails(Struct):
    explanation: str | None = None


class _Message(Struct):
    """A whole answer, or the head of a streamed one."""

    essential: ClassVar = "content"

    content: str | list[_Block | str] | None = None
    model: str | None = None
    stop_reason: str | None = None
    stop_details: _StopDetails | None = None
    usage: Raw = ABSENT
    error: Raw = ABSENT
    request_id: str | None = None


class _Delta(_Block):
    """What changes: a block's text, or how the message ended."""

    stop_reason: str | None = None
    stop_details: _StopDetails | None = None


class _Event(Struct):
    type: str = ""
    index: int | None = None
    message: _Message | None = None
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: Raw = ABSENT
    error: Raw = ABSENT


class _Usage(Struct):
    input_tokens: Count = None
    output_tokens: Count = None
    cache_read_input_tokens: Count = None
    cache_creation_input_tokens: Count = None

    def normalized(self) -> Usage:
        """Return the counts in the sense of `Usage`: Anthropic leaves the cache out of the input."""
        cached = (self.cache_read_input_tokens or 0) + (self.cache_creation_input_tokens or 0)
        return Usage(
            input=None if self.input_tokens is None else self.input_tokens + cached,
            output=self.output_tokens,
            cached=self.cache_read_input_tokens,
        )


class _Assembly:
    """One answer put together from one message or from many events."""

    def __init__(self, head: ResponseHead) -> None:
        self._head = head
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._usage: dict[str, Any] = {}
        self._model: str | None = None
        self._explanation: str | None = None
        self._begun: set[int | None] = set()
        self.stop_reason: str | None = None

    def begin_block(self, index: int | None, block: _Block) -> str:
        """Add what the start of a block holds, and return its text; some servers repeat starts."""
        if index in self._begun:
            return ""
        if index is not None:
            self._begun.add(index)
        return self.add_block(block)

    def add_block(self, block: _Block) -> str:
        """Add `block` and return its text."""
        self._texts += filter(None, [block.answer])
        self._thoughts += filter(None, [block.thought])
        return block.answer

    def add_end(self, end: _Message | _Delta) -> None:
        """Add why the model stopped, where `end` says so."""
        self.stop_reason = end.stop_reason or self.stop_reason
        if end.stop_details is not None:
            self._explanation = end.stop_details.explanation

    def add_usage(self, usage: Raw) -> None:
        """Let the counts in `usage` override earlier ones: they are cumulative."""
        found = value_of(usage)
        if isinstance(found, dict):
            self._usage |= {name: count for name, count in found.items() if count is not None}

    def add_message(self, message: _Message) -> str:
        """Add `message` and return its text. Raises `ModelError` if it reports an error."""
        if error := value_of(message.error):
            raise self._head.failure_inside({"error": error, "request_id": message.request_id})
        self._model = message.model or self._model
        self.add_usage(message.usage)
        self.add_end(message)
        if self._texts:  # a start that is repeated
            return ""
        parts = [message.content] if isinstance(message.content, str) else message.content or ()
        blocks = (_Block(type="text", text=part) if isinstance(part, str) else part for part in parts if part)
        return "".join(filter(None, map(self.add_block, blocks)))

    def completion(self) -> Completion:
        """Return what has been put together."""
        return Completion(
            content="".join(self._texts),
            usage=read_usage(self._usage, _Usage),
            finish_reason=_FINISH.get((self.stop_reason or "").lower()),
            request_id=self._head.request_id,
            model=self._model,
            reasoning="".join(self._thoughts) or None,
            refusal=self._explanation if self.stop_reason == "refusal" else None,
        )


_read_message = TolerantDecoder(_Message)
_read_event = TolerantDecoder(_Event)


class _MessageDecoder(EventDecoder):
    """Named events from ``message_start`` to ``message_stop``; types that are not known pass by."""

    def __init__(self, head: ResponseHead) -> None:
        super().__init__(head)
        self._assembly = _Assembly(head)

    def read(self, name: str, data: bytes) -> str:
        """Return the text in one event. Raises `ModelError`."""
        event = self.head.read(_read_event, data)
        event.type = event.type or name
        known = event.type.startswith(("message_", "content_block", "ping"))
        failed = event.error is not ABSENT and value_of(event.error)
        if event.type == "error" or failed or (not known and self.head.reports_failure(data)):
            raise self.head.failure_inside(data)
        self._assembly.add_usage(event.usage)
        match event:
            case _Event(type="message_start", message=_Message() as message):
                return self._assembly.add_message(message)
            case _Event(type="content_block_start", content_block=_Block() as block):
                return self._assembly.begin_block(event.index, block)
            case _Event(type="content_block_delta", delta=_Delta() as delta):
                return self._assembly.add_block(delta)
            case _Event(type="message_delta", delta=_Delta() as delta):
                self._assembly.add_end(delta)
                self.finished = self._assembly.stop_reason is not None
            case _Event(type="message_stop"):
                self.terminated = True
        return ""

    def completion(self) -> Completion:
        """Return the whole answer. Raises `ModelError` if no stop reason was seen."""
        self.check_end()
        return self._assembly.completion()


class AnthropicMessages(Dialect):
    """``POST {base_url}/v1/messages``.

    There is no seed; and where no `max_tokens` is given 4096 are sent, since the API requires a number.
    """

    stream_decoder = _MessageDecoder

    def __init__(self, model: str, *, provider: str, base_url: str) -> None:
        super().__init__(model, provider=provider, base_url=base_url)
        self.base_url = without_endings(self.base_url, "/v1/messages", "/messages", "/v1")

    def headers(self, api_key: str) -> dict[str, str]:
        """Return the headers of the key, if there is one, and of the API's version."""
        key = {"x-api-key": api_key} if api_key else {}
        return {**key, "anthropic-version": _VERSION}

    def url(self, *, stream: bool) -> str:  # noqa: ARG002 - one address for both
        """Return the address of the messages."""
        return f"{self.base_url}/v1/messages"

    def encode(self, request: ModelRequest, options: CallOptions, *, stream: bool) -> dict[str, Any]:
        """Return the JSON of `request`."""
        system, messages = apart(messages_of(request, options))
        effort = options.reasoning_effort
        return {
            "model": self.model,
            "max_tokens": options.max_tokens or _MAX_TOKENS,
            "system": system,
            "messages": [{"role": message.role, "content": message.text} for message in messages],
            "temperature": options.temperature,
            "top_p": options.top_p,
            "stop_sequences": options.stop_sequences,
            "output_config": {"effort": effort} if effort else None,
            "stream": True if stream else None,
        }

    def decode(self, content: bytes, head: ResponseHead) -> Completion:
        """Return the plain answer. Raises `ModelError`."""
        message = head.read(_read_message, content)
        assembly = _Assembly(head)
        assembly.add_message(message)
        if message.content is None:
            raise head.failure_inside(content)
        return assembly.completion()
