"""Anthropic's Messages API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Struct

from ultra.clients.dialects.base import Dialect, apart, messages_of
from ultra.clients.dialects.decoders import EventDecoder
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
    "pause_turn": "stop",
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

    content: list[_Block] | None = None
    model: str | None = None
    stop_reason: str | None = None
    stop_details: _StopDetails | None = None
    usage: Any = None
    error: Any = None
    request_id: Any = None


class _Delta(_Block):
    """What changes: a block's text, or how the message ended."""

    stop_reason: str | None = None
    stop_details: _StopDetails | None = None


class _Event(Struct):
    type: str = ""
    message: _Message | None = None
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: Any = None
    error: Any = None
    request_id: Any = None


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
        self.stop_reason: str | None = None

    def add_block(self, block: _Block) -> str:
        """Add `block` and return its text."""
        self._texts.append(block.answer)
        self._thoughts.append(block.thought)
        return block.answer

    def add_end(self, end: _Message | _Delta) -> None:
        """Add why the model stopped, where `end` says so."""
        self.stop_reason = end.stop_reason or self.stop_reason
        if end.stop_details is not None:
            self._explanation = end.stop_details.explanation

    def add_usage(self, usage: object) -> None:
        """Let the counts in `usage` override earlier ones: they are cumulative."""
        if isinstance(usage, dict):
            self._usage |= {name: count for name, count in usage.items() if count is not None}

    def add_message(self, message: _Message) -> str:
        """Add `message` and return its text. Raises `ModelError` if it reports an error."""
        if message.error:
            raise self._head.failure_inside({"error": message.error, "request_id": message.request_id})
        self._model = message.model or self._model
        self.add_usage(message.usage)
        self.add_end(message)
        return "".join([self.add_block(block) for block in message.content or ()])

    def completion(self) -> Completion:
        """Return what has been put together."""
        return Completion(
            content="".join(self._texts),
            usage=read_usage(self._usage, _Usage),
            finish_reason=_FINISH.get(self.stop_reason or ""),
            request_id=self._head.request_id,
            model=self._model,
            reasoning="".join(self._thoughts) or None,
            refusal=self._explanation if self.stop_reason == "refusal" else None,
        )


_read_message = msgspec.json.Decoder(_Message).decode
_read_event = msgspec.json.Decoder(_Event).decode


class _MessageDecoder(EventDecoder):
    """Named events from ``message_start`` to ``message_stop``; types that are not known pass by."""

    def __init__(self, head: ResponseHead) -> None:
        super().__init__(head)
        self._assembly = _Assembly(head)

    def read(self, name: str, data: bytes) -> str:
        """Return the text in one event. Raises `ModelError`."""
        if name == "error":
            raise self.head.failure_inside(data)
        event = self.head.read(_read_event, data)
        event.type = event.type or name
        if event.type == "error" or event.error:
            raise self.head.failure_inside(data)
        self._assembly.add_usage(event.usage)
        match event:
            case _Event(type="message_start", message=_Message() as message):
                return self._assembly.add_message(message)
            case _Event(type="content_block_start", content_block=_Block() as block):
                return self._assembly.add_block(block)
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
        if not self.finished:
            raise self.cut_off()
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
            "messages": [{"role": message.role, "content": message.content} for message in messages],
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
