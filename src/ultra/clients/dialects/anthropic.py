"""Anthropic's Messages API."""

from __future__ import annotations

import base64
import re
from itertools import takewhile
from typing import TYPE_CHECKING, Any, ClassVar, Final
from urllib.parse import urlencode

from msgspec import Raw, Struct
from msgspec.structs import replace

from ultra.clients.dialects.base import OPENING, Dialect, apart, messages_of, reasoning_of
from ultra.clients.dialects.decoders import EventDecoder
from ultra.clients.dialects.model_lists import PAGE_SIZE, read_anthropic_models
from ultra.clients.dialects.tolerant import ABSENT, TolerantDecoder, value_of
from ultra.clients.dialects.tool_calls import ToolCalls, arguments_text, finish_with
from ultra.clients.dialects.usage import Count, counted, read_usage
from ultra.clients.wire.addresses import without_endings
from ultra.clients.wire.finish_reasons import read_finish_reason
from ultra.messages.chat import FilePart, ImagePart, ReasoningPart, TextPart
from ultra.messages.reasoning import ReasoningDelta
from ultra.messages.results import Completion, Usage
from ultra.messages.tools import arguments_object

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ultra.clients.dialects.model_lists import ModelPage
    from ultra.clients.options import CallOptions
    from ultra.clients.wire.response_head import ResponseHead
    from ultra.messages.chat import ChatMessage, Part
    from ultra.messages.request import ModelRequest
    from ultra.messages.tools import Tool, ToolChoice

__all__ = ["AnthropicMessages"]

_VERSION: Final = "2023-06-01"

_PROVIDER: Final = "anthropic"
"""Who made the reasoning that goes back, whatever gateway it came through."""

_NO_REASONING: Final = ReasoningPart(provider=_PROVIDER)

_MAX_TOKENS: Final = 4096  # the API requires a number, and every model allows this one
_MAX_TOKENS_WITH_THOUGHTS: Final = 16_384  # those that think count, too; all models that can allow this one

# The API refuses thinking of these, and more than 4,096 or 8,192 tokens.
_CANNOT_THINK: Final = re.compile(r"claude-(instant|v?[12]\b|3-(?!7))")


class _Block(Struct):
    """One block of content, or a piece of one."""

    type: str = ""
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None  # of thinking that is not shown
    id: str | None = None
    name: str | None = None
    input: Raw = ABSENT
    partial_json: str | None = None

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
    stop_sequence: str | None = None
    stop_details: _StopDetails | None = None
    usage: Raw = ABSENT
    error: Raw = ABSENT
    request_id: str | None = None


class _Delta(_Block):
    """What changes: a block's text, or how the message ended."""

    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: _StopDetails | None = None


class _Event(Struct):
    type: str = ""
    index: int | None = None
    message: _Message | None = None
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: Raw = ABSENT
    error: Raw = ABSENT


class _OutputDetails(Struct):
    thinking_tokens: Count = None


class _Usage(Struct):
    input_tokens: Count = None
    output_tokens: Count = None
    cache_read_input_tokens: Count = None
    cache_creation_input_tokens: Count = None
    output_tokens_details: _OutputDetails | None = None

    def normalized(self) -> Usage:
        """Return the counts in the sense of `Usage`: Anthropic leaves the cache out of the input."""
        cached = (self.cache_read_input_tokens or 0) + (self.cache_creation_input_tokens or 0)
        return Usage(
            input=None if self.input_tokens is None else self.input_tokens + cached,
            output=self.output_tokens,
            cached=self.cache_read_input_tokens,
            written=self.cache_creation_input_tokens,
            reasoning=self.output_tokens_details.thinking_tokens if self.output_tokens_details else None,
        )


class _Assembly:
    """One answer put together from one message or from many events, whose `thoughts` go to that list."""

    def __init__(self, head: ResponseHead, thoughts: list[ReasoningDelta] | None = None) -> None:
        self._head = head
        self._told = thoughts
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._blocks: dict[int | None, tuple[list[str], ReasoningPart]] = {}  # of thinking
        self._calls = ToolCalls()
        self._counts: dict[str, Any] = {}
        self.usage: Usage | None = None
        self._model: str | None = None
        self._explanation: str | None = None
        self._begun: set[int | None] = set()
        self.stop_reason: str | None = None
        self._stop_sequence: str | None = None

    def begin_block(self, index: int | None, block: _Block) -> str:
        """Add what the start of a block holds, and return its text; some servers repeat starts."""
        if index in self._begun:
            return ""
        if index is not None:
            self._begun.add(index)
        return self.add_block(index, block)

    def add_block(self, index: int | None, block: _Block) -> str:
        """Add `block`, whole or a piece of the one with this index, and return its text."""
        self._texts += filter(None, [block.answer])
        self._thoughts += filter(None, [block.thought])
        match block.type:
            case "thinking" | "thinking_delta" | "signature_delta" | "redacted_thinking":
                self._think(index, block)
            case "tool_use":
                given = value_of(block.input)  # of a stream, an empty object: the pieces follow
                arguments = arguments_text(given) if given else ""
                self._calls.add(index=index, id=block.id, name=block.name, arguments=arguments)
            case "input_json_delta":
                self._calls.add(index=index, arguments=block.partial_json)
        return block.answer

    def _think(self, index: int | None, block: _Block) -> None:
        text, signature, encrypted = block.thought, block.signature or None, block.data or None
        texts, before = self._blocks.get(index, ([], _NO_REASONING))
        texts.append(text)
        sealed = replace(
            before, signature=signature or before.signature, encrypted=encrypted or before.encrypted
        )
        self._blocks[index] = texts, sealed
        if self._told is not None and (text or signature or encrypted):
            self._told.append(ReasoningDelta(text, _PROVIDER, signature=signature, encrypted=encrypted))

    def add_end(self, end: _Message | _Delta) -> None:
        """Add why the model stopped, where `end` says so."""
        self.stop_reason = end.stop_reason or self.stop_reason
        self._stop_sequence = end.stop_sequence or self._stop_sequence
        if end.stop_details is not None:
            self._explanation = end.stop_details.explanation

    def add_usage(self, usage: Raw) -> None:
        """Let the counts in `usage` override earlier ones: they are cumulative."""
        found = value_of(usage)
        if isinstance(found, dict):
            known = {name: found.get(name) for name in _Usage.__struct_fields__}
            self._counts |= {name: count for name, count in known.items() if count is not None}
            self.usage = read_usage(self._counts, _Usage)

    def add_message(self, message: _Message) -> str:
        """Add `message` and return its text. Raises `ModelError` if it reports an error."""
        self.add_usage(message.usage)
        if error := value_of(message.error):
            raise self._head.failure_inside({"error": error, "request_id": message.request_id})
        self._model = message.model or self._model
        self.add_end(message)
        if self._texts:  # a start that is repeated
            return ""
        parts = [message.content] if isinstance(message.content, str) else message.content or ()
        blocks = (_Block(type="text", text=part) if isinstance(part, str) else part for part in parts if part)
        return "".join(self.add_block(number, block) for number, block in enumerate(blocks))

    def completion(self) -> Completion:
        """Return what has been put together."""
        finish = read_finish_reason(self.stop_reason)
        calls = self._calls.whole(cut=finish == "length")
        return Completion(
            content="".join(self._texts),
            usage=self.usage,
            finish_reason=finish_with(calls, finish),
            request_id=self._head.request_id,
            model=self._model,
            reasoning="".join(self._thoughts) or None,
            refusal=self._explanation if self.stop_reason == "refusal" else None,
            tool_calls=calls,
            # Without its signature, the API does not take it back.
            reasoning_parts=tuple(
                replace(part, text="".join(texts))
                for texts, part in self._blocks.values()
                if part.signature or part.encrypted
            ),
            stop_sequence=self._stop_sequence,
        )


_read_message = TolerantDecoder(_Message)
_read_event = TolerantDecoder(_Event)


class _MessageDecoder(EventDecoder):
    """Named events from ``message_start`` to ``message_stop``; types that are not known pass by."""

    def __init__(self, head: ResponseHead) -> None:
        super().__init__(head)
        self._assembly = _Assembly(head, self.thoughts)

    def read(self, name: str, data: bytes) -> str:
        """Return the text in one event. Raises `ModelError`."""
        event = self.head.read(_read_event, data)
        event.type = event.type or name
        self._assembly.add_usage(event.usage)
        known = event.type.startswith(("message_", "content_block", "ping"))
        failed = event.error is not ABSENT and value_of(event.error)
        if event.type == "error" or failed or (not known and self.head.reports_failure(data)):
            raise self.head.failure_inside(data)
        match event:
            case _Event(type="message_start", message=_Message() as message):
                return self._assembly.add_message(message)
            case _Event(type="content_block_start", content_block=_Block() as block):
                return self._assembly.begin_block(event.index, block)
            case _Event(type="content_block_delta", delta=_Delta() as delta):
                return self._assembly.add_block(event.index, delta)
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

    @property
    def usage(self) -> Usage | None:
        """The tokens of the call, as far as the stream has told them."""
        return self._assembly.usage


class AnthropicMessages(Dialect):
    """``POST {base_url}/v1/messages``.

    There is no seed; and where no `max_tokens` is given 4096 are sent, since the API requires a number.
    """

    stream_decoder = _MessageDecoder
    unknown_options = frozenset({"seed"})
    strict_schemas = True

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

    def models_url(self, after: str | None) -> str:
        """Return the address of the list of models."""
        page = {"limit": PAGE_SIZE} | ({"after_id": after} if after else {})
        return f"{self.base_url}/v1/models?{urlencode(page)}"

    def decode_models(self, content: bytes, head: ResponseHead) -> ModelPage:
        """Return one page of the list of models. Raises `ModelError`."""
        return read_anthropic_models(content, head)

    def encode(self, request: ModelRequest, options: CallOptions, *, stream: bool) -> dict[str, Any]:
        """Return the JSON of `request`."""
        messages = messages_of(request, options)
        thinks = self._may_think(options) and _lets_think(request, self.provider)
        effort, output = options.reasoning_effort, request.output
        # The API has no effort of this name: a model thinks only where it is asked to.
        config: dict[str, Any] = {"effort": effort} if effort and effort != "none" else {}
        if output is not None:
            config["format"] = {"type": "json_schema", "schema": output.schema}
        return {
            "model": self.model,
            "max_tokens": options.max_tokens or (_MAX_TOKENS_WITH_THOUGHTS if thinks else _MAX_TOKENS),
            "system": _system(messages),
            "messages": _turns(message for message in messages if message.role != "system"),
            "tools": [_tool(tool) for tool in request.tools] or None,
            "tool_choice": _choice(request.tool_choice) if request.tool_choice and request.tools else None,
            "temperature": options.temperature,
            "top_p": options.top_p,
            "stop_sequences": options.stop_sequences,
            "output_config": config or None,
            "thinking": {"type": "adaptive", "display": "summarized"} if thinks else None,
            "stream": True if stream else None,
        }

    def _may_think(self, options: CallOptions) -> bool:
        """Return whether the model is to think, is able to, and may by how it samples."""
        samples = options.temperature is not None or options.top_p is not None
        return bool(options.show_reasoning) and not samples and not _CANNOT_THINK.search(self.model)

    def default_limit(self, options: CallOptions) -> int:
        """Return the `max_tokens` that are sent where the options have none, at most."""
        return _MAX_TOKENS_WITH_THOUGHTS if self._may_think(options) else _MAX_TOKENS

    def decode(self, content: bytes, head: ResponseHead) -> Completion:
        """Return the plain answer. Raises `ModelError`."""
        message = head.read(_read_message, content)
        assembly = _Assembly(head)
        with counted(assembly):
            assembly.add_message(message)
            if message.content is None:
                raise head.failure_inside(content)
        return assembly.completion()


def _lets_think(request: ModelRequest, provider: str) -> bool:
    """Return whether the API lets a model think about a request.

    No tool must be forced, and in a turn that goes on behind calls of tools, the thoughts before these must
    be there.
    """
    choice = request.tool_choice
    if request.tools and choice is not None and choice.mode in {"required", "named"}:
        return False
    turn = list(takewhile(lambda message: message.role != "user", reversed(request.messages)))
    return all(reasoning_of(message, provider) for message in turn if message.tool_calls)


# --- what is sent ----------------------------------------------------------------------------------


def _system(messages: list[ChatMessage]) -> str | list[dict[str, Any]] | None:
    """Return the system messages as text, or as blocks where there are hints of what to cache."""
    system = [message for message in messages if message.role == "system"]
    blocks = [block for message in system for part in message.parts if (block := _block(part))]
    if any("cache_control" in block for block in blocks):
        return blocks
    return apart(system)[0]


def _turns(messages: Iterable[ChatMessage]) -> list[dict[str, Any]]:
    """Return the turns: those of one side that follow each other are one, as the results of tools must be.

    The API refuses a conversation that the assistant begins, so a turn of the user stands ahead of it.
    """
    turns: list[dict[str, Any]] = []
    for message in messages:
        role = "assistant" if message.role == "assistant" else "user"
        plain = isinstance(message.content, str) and not message.tool_calls and message.role != "tool"
        content = message.content if plain else _blocks(message)
        if not content or (isinstance(content, str) and not content.strip()):
            continue  # the API takes no empty turns
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] = _as_blocks(turns[-1]["content"])
            turns[-1]["content"] += _as_blocks(content)
        else:
            turns.append({"role": role, "content": content})
    if turns and turns[0]["role"] == "assistant":
        turns.insert(0, {"role": "user", "content": OPENING})
    return turns


def _as_blocks(content: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - text or blocks
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _blocks(message: ChatMessage) -> list[dict[str, Any]]:
    """Return the blocks of a message; some parts have none: reasoning of others, and text of blanks alone."""
    blocks = [block for part in message.parts if (block := _block(part))]
    if message.role == "tool":
        content = message.content if isinstance(message.content, str) else blocks
        result = {"type": "tool_result", "tool_use_id": message.tool_call_id, "content": content}
        return [{**result, "is_error": True} if message.is_error else result]
    return blocks + [
        {"type": "tool_use", "id": call.id, "name": call.name, "input": arguments_object(call.arguments)}
        for call in message.tool_calls
    ]


def _block(part: Part) -> dict[str, Any]:
    block: dict[str, Any]
    match part:
        case ReasoningPart(provider=provider) if provider != _PROVIDER:
            return {}
        case ReasoningPart(signature=None, encrypted=None):
            return {}
        case ReasoningPart(encrypted=None):
            return {"type": "thinking", "thinking": part.text, "signature": part.signature}
        case ReasoningPart():
            return {"type": "redacted_thinking", "data": part.encrypted}
        case TextPart():
            if not part.text.strip():  # the API refuses it
                return {}
            block = {"type": "text", "text": part.text}
        case ImagePart():
            block = {"type": "image", "source": _source(part)}
        case FilePart():
            block = {"type": "document", "source": _source(part)}
            if part.name:
                block["title"] = part.name
    return block if part.cache_control is None else {**block, "cache_control": part.cache_control}


def _source(part: ImagePart | FilePart) -> dict[str, Any]:
    if part.data is None:
        return {"type": "url", "url": part.url}
    if part.media_type == "text/plain":
        text = part.data.decode("utf-8", "replace")
        return {"type": "text", "media_type": "text/plain", "data": text}
    data = base64.b64encode(part.data).decode()
    return {"type": "base64", "media_type": part.media_type, "data": data}


def _tool(tool: Tool) -> dict[str, Any]:
    given: dict[str, Any] = {"name": tool.name, "input_schema": tool.parameters}
    if tool.description:
        given["description"] = tool.description
    if tool.strict is not None:
        given["strict"] = tool.strict
    return given if tool.cache_control is None else {**given, "cache_control": tool.cache_control}


def _choice(choice: ToolChoice) -> dict[str, Any]:
    kinds = {"required": "any", "named": "tool"}
    given: dict[str, Any] = {"type": kinds.get(choice.mode, choice.mode)}
    if choice.mode == "named":
        given["name"] = choice.name
    if choice.parallel is not None and choice.mode != "none":
        given["disable_parallel_tool_use"] = not choice.parallel
    return given
