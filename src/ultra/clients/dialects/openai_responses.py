"""OpenAI's Responses API, for the models that have no other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from msgspec import Raw, Struct

from ultra.clients.dialects.base import Dialect, apart, messages_of, reasoning_of
from ultra.clients.dialects.decoders import EventDecoder
from ultra.clients.dialects.tolerant import ABSENT, TolerantDecoder, value_of
from ultra.clients.dialects.tool_calls import ToolCalls, arguments_text, finish_with
from ultra.clients.dialects.usage import Count, counted, read_usage, with_total
from ultra.clients.wire.finish_reasons import read_finish_reason
from ultra.messages.chat import FilePart, ImagePart, ReasoningPart, TextPart
from ultra.messages.openai_form import data_url
from ultra.messages.reasoning import ReasoningDelta
from ultra.messages.results import Completion, Usage
from ultra.messages.tools import arguments_json

if TYPE_CHECKING:
    from ultra.clients.options import CallOptions
    from ultra.clients.wire.response_head import ResponseHead
    from ultra.messages.chat import ChatMessage, Part
    from ultra.messages.request import ModelRequest
    from ultra.messages.results import FinishReason
    from ultra.messages.schema import JsonSchema
    from ultra.messages.tools import Tool, ToolChoice

__all__ = ["OpenAIResponses"]

_BROKEN_OFF: Final = ("failed", "cancelled")


class _Part(Struct):
    """A part of a message, or of reasoning or its summary."""

    type: str = ""
    text: str | None = None
    refusal: str | None = None


class _Item(Struct):
    """A message, reasoning, or the call of a function."""

    type: str = "message"
    id: str | None = None
    content: list[_Part] | None = None
    summary: list[_Part] | None = None
    encrypted_content: str | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | dict[str, Any] | None = None


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
    item: _Item | None = None
    response: _Answer | None = None
    error: Raw = ABSENT


class _InputDetails(Struct):
    cached_tokens: Count = None
    cache_write_tokens: Count = None


class _OutputDetails(Struct):
    reasoning_tokens: Count = None


class _Usage(Struct):
    input_tokens: Count = None
    output_tokens: Count = None
    total_tokens: Count = None
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None

    def normalized(self) -> Usage:
        """Return the counts in the sense of `Usage`; reasoning is in the output."""
        read = self.input_tokens_details or _InputDetails()
        usage = Usage(
            input=self.input_tokens,
            output=self.output_tokens,
            cached=read.cached_tokens,
            written=read.cache_write_tokens,
            reasoning=self.output_tokens_details.reasoning_tokens if self.output_tokens_details else None,
        )
        return with_total(usage, self.total_tokens)


class _Assembly:
    """One answer put together from one object or from many events."""

    def __init__(self, head: ResponseHead) -> None:
        self._head = head
        self.texts: list[str] = []
        self.thoughts: list[str] = []
        self.refusals: list[str] = []
        self.items: list[_Item] = []
        self._answer: _Answer | None = None
        self.usage: Usage | None = None

    @property
    def finished(self) -> bool:
        """Whether the model has said that it is done."""
        return self._answer is not None and self._answer.status in {"completed", "incomplete"}

    def add(self, answer: _Answer) -> str:
        """Add a response object and return the text that is new in it. Raises `ModelError` if it failed."""
        self.usage = read_usage(value_of(answer.usage), _Usage) or self.usage
        error = value_of(answer.error)
        if error or answer.status in _BROKEN_OFF:
            reason = error or f"the model broke off: {answer.status}"
            raise self._head.failure_inside({"error": reason})
        self._answer = answer
        self.items = answer.output or self.items  # the last event has them all
        if self.texts or self.refusals:  # the last event repeats the whole text
            return ""
        said: list[str] = []
        for item in self.items:
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
        calls = ToolCalls()
        for item in self.items:
            if item.type == "function_call":
                name = item.call_id or item.id
                calls.add(id=name, name=item.name, arguments=arguments_text(item.arguments))
        finish = self._finish(answer)
        whole = calls.whole(cut=finish == "length")
        return Completion(
            content="".join(self.texts),
            usage=self.usage,
            finish_reason=finish_with(whole, finish),
            request_id=self._head.request_id or answer.id,
            model=answer.model,
            reasoning="".join(self.thoughts) or None,
            refusal="".join(self.refusals) or None,
            tool_calls=whole,
            reasoning_parts=tuple(
                ReasoningPart(
                    "\n\n".join(part.text or "" for part in item.summary or ()),
                    self._head.provider,
                    encrypted=item.encrypted_content,
                    id=item.id,
                )
                for item in self.items
                if item.type == "reasoning" and item.encrypted_content
            ),
        )

    def _finish(self, answer: _Answer) -> FinishReason | None:
        if answer.status == "incomplete":
            details = answer.incomplete_details or _Incomplete()
            reason = read_finish_reason(details.reason) or "length"
            return "other" if reason == "stop" else reason  # it says itself that it is not complete
        if any(self.refusals):
            return "refusal"
        return read_finish_reason(answer.status)  # ``completed``, or such as ``in_progress``


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
                self._think(delta)
            case "response.reasoning_summary_part.added" if self._assembly.thoughts:
                self._think("\n\n")
            case "response.output_item.done" if event.item is not None:
                self._end_item(event.item)
            case "response.completed" | "response.incomplete" | "response.failed":
                text = self._assembly.add(event.response or _Answer())
                self.finished = self.terminated = self._assembly.finished
                return text
        return ""

    def _think(self, text: str) -> None:
        self._assembly.thoughts.append(text)
        self.thoughts.append(ReasoningDelta(text, self.head.provider))

    def _end_item(self, item: _Item) -> None:
        self._assembly.items.append(item)
        if item.type == "reasoning" and item.encrypted_content:
            sealed = {"encrypted": item.encrypted_content, "id": item.id}
            self.thoughts.append(ReasoningDelta("", self.head.provider, **sealed))

    def completion(self) -> Completion:
        """Return the whole answer. Raises `ModelError` if the last event was not seen."""
        self.check_end()
        return self._assembly.completion()

    @property
    def usage(self) -> Usage | None:
        """The tokens of the call, as far as the stream has told them."""
        return self._assembly.usage


class OpenAIResponses(Dialect):
    """``POST {base_url}/responses``. `base_url` ends in the version.

    There are no stop texts and no seed. The provider is asked to keep nothing (``store: false``).
    """

    stream_decoder = _EventsDecoder
    unknown_options = frozenset({"seed", "stop"})
    json_mode: ClassVar = {"text": {"format": {"type": "json_object"}}}

    def headers(self, api_key: str) -> dict[str, str]:
        """Return the header of the key, if there is one."""
        return {"authorization": f"Bearer {api_key}"} if api_key else {}

    def url(self, *, stream: bool) -> str:  # noqa: ARG002 - one address for both
        """Return the address of the responses."""
        return f"{self.base_url}/responses"

    def encode(self, request: ModelRequest, options: CallOptions, *, stream: bool) -> dict[str, Any]:
        """Return the JSON of `request`."""
        system, messages = apart(messages_of(request, options))
        choice, output = request.tool_choice, request.output
        # A server that refuses "reasoning" is first asked without what stands first in it.
        summary = "auto" if options.show_reasoning else None
        reasoning = {"summary": summary, "effort": options.reasoning_effort}
        return {
            "model": self.model,
            "instructions": system,
            "input": [item for message in messages for item in self._items(message)],
            "tools": [_tool(tool) for tool in request.tools] or None,
            "tool_choice": _choice(choice) if choice and request.tools else None,
            "parallel_tool_calls": choice.parallel if choice and request.tools else None,
            "text": {"format": _format(output)} if output else None,
            # Nothing is stored there, so the reasoning has to come back with the results of the tools.
            "include": ["reasoning.encrypted_content"] if request.tools else None,
            "temperature": options.temperature,
            "top_p": options.top_p,
            "max_output_tokens": options.max_tokens,
            "reasoning": {name: value for name, value in reasoning.items() if value} or None,
            "store": False,
            "stream": True if stream else None,
        }

    def _items(self, message: ChatMessage) -> list[dict[str, Any]]:
        """Return the items of the input that a message is: calls and results are items of their own."""
        if message.role == "tool":
            output: str | list[dict[str, Any]] = message.text
            if any(not isinstance(part, TextPart) for part in message.parts):
                output = list(map(_part, message.parts))
            return [{"type": "function_call_output", "call_id": message.tool_call_id, "output": output}]
        # What was shown of its reasoning is of no use to the API without the encrypted form.
        items = [_reasoning(part) for part in reasoning_of(message, self.provider) if part.encrypted]
        content: str | list[dict[str, Any]]
        if message.role == "assistant":
            content = message.text
        elif isinstance(message.content, str):
            content = message.content
        else:
            content = [_part(part) for part in message.content if not isinstance(part, ReasoningPart)]
        if content:
            items.append({"role": message.role, "content": content})
        items += [
            {
                "type": "function_call",
                "call_id": call.id,
                "name": call.name,
                "arguments": arguments_json(call.arguments),
            }
            for call in message.tool_calls
        ]
        return items

    def decode(self, content: bytes, head: ResponseHead) -> Completion:
        """Return the plain answer. Raises `ModelError`."""
        answer = head.read(_read_answer, content)
        assembly = _Assembly(head)
        with counted(assembly):
            assembly.add(answer)
            if answer.output is None:
                raise head.failure_inside(content)
        return assembly.completion()


# --- what is sent ----------------------------------------------------------------------------------


def _part(part: Part) -> dict[str, Any]:
    match part:
        case TextPart() | ReasoningPart():
            return {"type": "input_text", "text": part.text}
        case ImagePart():
            return {"type": "input_image", "image_url": data_url(part), "detail": part.detail or "auto"}
        case FilePart(data=None):
            return {"type": "input_file", "file_url": part.url}
        case FilePart():
            return {"type": "input_file", "filename": part.name or "file", "file_data": data_url(part)}


def _reasoning(part: ReasoningPart) -> dict[str, Any]:
    summary = [{"type": "summary_text", "text": part.text}] if part.text else []
    given = {"type": "reasoning", "summary": summary, "encrypted_content": part.encrypted}
    return given if part.id is None else {**given, "id": part.id}


def _tool(tool: Tool) -> dict[str, Any]:
    given = {"type": "function", "name": tool.name, "parameters": tool.parameters}
    if tool.description:
        given["description"] = tool.description
    # Left out, it is true here, and refuses most schemas.
    return {**given, "strict": bool(tool.strict)}


def _choice(choice: ToolChoice) -> str | dict[str, Any]:
    return {"type": "function", "name": choice.name} if choice.mode == "named" else choice.mode


def _format(output: JsonSchema) -> dict[str, Any]:
    return {"type": "json_schema", "name": output.name, "schema": output.schema, "strict": output.strict}
