"""Google's Gemini API, ``generateContent``."""

from __future__ import annotations

import base64
import mimetypes
import re
from typing import TYPE_CHECKING, Any, ClassVar, Final
from urllib.parse import quote, urlencode, urlsplit

from msgspec import Raw, Struct
from msgspec.structs import replace

from ultra.clients.dialects.base import Dialect, apart, messages_of, reasoning_of
from ultra.clients.dialects.decoders import EventDecoder, new_text
from ultra.clients.dialects.model_lists import PAGE_SIZE, read_gemini_models
from ultra.clients.dialects.tolerant import ABSENT, TolerantDecoder, value_of
from ultra.clients.dialects.tool_calls import (
    OWN_IDS,
    ToolCalls,
    arguments_object,
    arguments_text,
    finish_with,
)
from ultra.clients.dialects.usage import Count, counted, read_usage, with_total
from ultra.clients.wire.finish_reasons import read_finish_reason
from ultra.messages.chat import FilePart, ImagePart, ReasoningPart, TextPart
from ultra.messages.reasoning import ReasoningDelta
from ultra.messages.results import Completion, Usage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ultra.clients.dialects.model_lists import ModelPage
    from ultra.clients.options import CallOptions
    from ultra.clients.wire.response_head import ResponseHead
    from ultra.messages.chat import ChatMessage, Part, ToolCall
    from ultra.messages.request import ModelRequest
    from ultra.messages.tools import Tool, ToolChoice

__all__ = ["GeminiGenerate"]

_PROVIDER: Final = "gemini"
"""Who made the signatures that go back, whatever gateway they came through."""

_NO_SIGNATURE: Final = "skip_thought_signature_validator"
"""What Google's documentation names for a call that another model made; newer models ask for a signature."""

_WANTS_SIGNATURES: Final = re.compile(r"gemini-(?:[3-9]|\d\d)")

_METHOD: Final = re.compile(r"/models(/[^/]*)?$")
"""What stands behind the root in the address of a model's method."""


class _Function(Struct):
    name: str | None = None
    id: str | None = None
    args: dict[str, Any] | None = None


class _Part(Struct, rename="camel"):
    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    function_call: _Function | None = None


class _Content(Struct):
    essential: ClassVar = "parts"

    parts: list[_Part | str] | None = None


class _Candidate(Struct, rename="camel"):
    index: int | None = 0
    content: _Content | None = None
    finish_reason: str | None = None


class _Feedback(Struct, rename="camel"):
    block_reason: str | None = None
    block_reason_message: str | None = None


class _Answer(Struct, rename="camel"):
    """A whole answer or one chunk of a streamed one."""

    candidates: list[_Candidate] | None = None
    prompt_feedback: _Feedback | None = None
    usage_metadata: Raw = ABSENT
    model_version: str | None = None
    response_id: str | None = None
    error: Raw = ABSENT


class _Usage(Struct, rename="camel"):
    prompt_token_count: Count = None
    tool_use_prompt_token_count: Count = None
    candidates_token_count: Count = None
    thoughts_token_count: Count = None
    total_token_count: Count = None
    cached_content_token_count: Count = None

    def normalized(self) -> Usage:
        """Return the counts in the sense of `Usage`: Gemini counts thoughts beside the candidates."""
        prompt = self.prompt_token_count
        if prompt is not None:
            prompt += self.tool_use_prompt_token_count or 0  # what its own tools found, read as a prompt
        output = None
        if self.candidates_token_count is not None:
            output = self.candidates_token_count + (self.thoughts_token_count or 0)
        elif self.total_token_count is not None:
            # Streams with thoughts may count the candidates nowhere but in the total.
            # After a prompt that is refused, there are none.
            output = max(self.total_token_count - (prompt or 0), self.thoughts_token_count or 0)
        usage = Usage(
            input=prompt,
            output=output,
            cached=self.cached_content_token_count,
            reasoning=self.thoughts_token_count,
        )
        return usage if output is None else with_total(usage, self.total_token_count)


class _Assembly:
    """One answer put together from one object or from many chunks, whose `thoughts` go to that list."""

    def __init__(self, head: ResponseHead, thoughts: list[ReasoningDelta] | None = None) -> None:
        self._head = head
        self._told = thoughts
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._signature: str | None = None
        self._calls = ToolCalls()
        self.usage: Usage | None = None
        self._model: str | None = None
        self._response_id: str | None = None
        self._blocked: _Feedback | None = None
        self._finish: str | None = None

    @property
    def finished(self) -> bool:
        """Whether it has been said why the model stopped."""
        return self._finish is not None or self._blocked is not None

    def add(self, answer: _Answer) -> str:
        """Add `answer` and return its text. Raises `ModelError` if it reports an error."""
        self.usage = read_usage(value_of(answer.usage_metadata), _Usage) or self.usage
        if error := value_of(answer.error):
            raise self._head.failure_inside({"error": error})
        self._model = answer.model_version or self._model
        self._response_id = answer.response_id or self._response_id
        if answer.prompt_feedback is not None and answer.prompt_feedback.block_reason:
            self._blocked = answer.prompt_feedback
        # Only the first of several candidates is the answer.
        return "".join([self._choose(each) for each in answer.candidates or () if not each.index])

    def _choose(self, candidate: _Candidate) -> str:
        self._finish = candidate.finish_reason or self._finish
        given = candidate.content.parts or [] if candidate.content else []
        parts = [_Part(text=part) if isinstance(part, str) else part for part in given]
        text = "".join(part.text or "" for part in parts if not part.thought)
        text = new_text(self._texts, text, last=self._finish is not None)
        self._texts += filter(None, [text])
        thoughts = [part.text for part in parts if part.thought and part.text]
        self._thoughts += thoughts
        if thoughts and self._told is not None:
            self._told += [ReasoningDelta(thought, _PROVIDER) for thought in thoughts]
        for part in parts:
            if part.function_call is not None:
                call = part.function_call
                self._calls.add(
                    id=call.id,
                    name=call.name,
                    arguments=arguments_text(call.args or {}),
                    signature=part.thought_signature,
                )
            elif part.thought_signature:
                self._signature = part.thought_signature
        return text

    def completion(self) -> Completion:
        """Return what has been put together."""
        calls = self._calls.whole()
        finish = read_finish_reason("safety" if self._blocked else self._finish)
        usage = self.usage
        if self._blocked and (usage is None or usage.output is None):  # nothing was written
            usage = replace(usage or Usage(), output=0)
        return Completion(
            content="".join(self._texts),
            usage=usage,
            finish_reason=finish_with(calls, finish),
            request_id=self._head.request_id or self._response_id,
            model=self._model,
            reasoning="".join(self._thoughts) or None,
            refusal=self._blocked.block_reason_message if self._blocked else None,
            tool_calls=calls,
            reasoning_parts=(
                (ReasoningPart(provider=_PROVIDER, signature=self._signature),) if self._signature else ()
            ),
        )


_read_answer = TolerantDecoder(_Answer)
_read_answers = TolerantDecoder(list[_Answer])


class _ChunkDecoder(EventDecoder):
    """Chunks, ended by nothing but the end of the body."""

    def __init__(self, head: ResponseHead) -> None:
        super().__init__(head)
        self._assembly = _Assembly(head, self.thoughts)

    def read(self, name: str, data: bytes) -> str:  # noqa: ARG002 - Gemini's events have no names
        """Return the text in one chunk. Raises `ModelError`."""
        answer = self.head.read(_read_answer, data)
        empty = not answer.candidates and answer.prompt_feedback is None and answer.usage_metadata is ABSENT
        if empty and self.head.reports_failure(data):
            raise self.head.failure_inside(data)
        text = self._assembly.add(answer)
        self.finished = self._assembly.finished
        return text

    def completion(self) -> Completion:
        """Return the whole answer. Raises `ModelError` if no finish reason was seen."""
        self.check_end()
        return self._assembly.completion()

    @property
    def usage(self) -> Usage | None:
        """The tokens of the call, as far as the stream has told them."""
        return self._assembly.usage


class GeminiGenerate(Dialect):
    """``POST {base_url}/v1beta/models/{model}:generateContent``.

    A `base_url` with a path stands for everything before ``/models``, as at Vertex AI.
    """

    stream_decoder = _ChunkDecoder

    def __init__(self, model: str, *, provider: str, base_url: str) -> None:
        super().__init__(model, provider=provider, base_url=base_url)
        self.base_url = _METHOD.sub("", self.base_url)

    def headers(self, api_key: str) -> dict[str, str]:
        """Return the header of the key, if there is one."""
        return {"x-goog-api-key": api_key} if api_key else {}

    def url(self, *, stream: bool) -> str:
        """Return the address of the model's method."""
        root = self.base_url if urlsplit(self.base_url).path else f"{self.base_url}/v1beta"
        method = "streamGenerateContent?alt=sse" if stream else "generateContent"
        return f"{root}/models/{quote(self.model.removeprefix('models/'), safe='')}:{method}"

    def models_url(self, after: str | None) -> str:
        """Return the address of the list of models."""
        root = self.base_url if urlsplit(self.base_url).path else f"{self.base_url}/v1beta"
        page = {"pageSize": PAGE_SIZE} | ({"pageToken": after} if after else {})
        return f"{root}/models?{urlencode(page)}"

    def decode_models(self, content: bytes, head: ResponseHead) -> ModelPage:
        """Return one page of the list of models. Raises `ModelError`."""
        return read_gemini_models(content, head)

    def encode(self, request: ModelRequest, options: CallOptions, *, stream: bool) -> dict[str, Any]:  # noqa: ARG002 - the address says it
        """Return the JSON of `request`."""
        system, messages = apart(messages_of(request, options))
        choice = request.tool_choice if request.tools else None
        output = request.output
        thinking: dict[str, Any] = {"includeThoughts": True} if options.show_reasoning else {}
        if options.reasoning_effort:
            thinking["thinkingLevel"] = options.reasoning_effort
        generation = {
            "temperature": options.temperature,
            "topP": options.top_p,
            "maxOutputTokens": options.max_tokens,
            "stopSequences": options.stop_sequences,
            "seed": options.seed,
            "thinkingConfig": thinking or None,
            "responseMimeType": "application/json" if output else None,
            "responseJsonSchema": output.schema if output else None,
        }
        given = {name: value for name, value in generation.items() if value is not None}
        return {
            "contents": _contents(messages, signed=_WANTS_SIGNATURES.search(self.model) is not None),
            "systemInstruction": {"parts": [{"text": system}]} if system else None,
            "tools": [{"functionDeclarations": list(map(_tool, request.tools))}] if request.tools else None,
            "toolConfig": _tool_config(choice) if choice else None,
            "generationConfig": given or None,
        }

    def decode(self, content: bytes, head: ResponseHead) -> Completion:
        """Return the plain answer, or that of the array which a stream without events is.

        Raises `ModelError`.
        """
        several = content.lstrip().startswith(b"[")
        answers = head.read(_read_answers, content) if several else [head.read(_read_answer, content)]
        assembly = _Assembly(head)
        with counted(assembly):
            for answer in answers:
                assembly.add(answer)
            if not assembly.finished and not any(answer.candidates for answer in answers):
                raise head.failure_inside(content)
        return assembly.completion()


# --- what is sent ----------------------------------------------------------------------------------


def _contents(messages: list[ChatMessage], *, signed: bool) -> list[dict[str, Any]]:
    """Return the turns: results of tools that follow each other are one turn, and know their tool by name.

    `signed`: the model refuses calls without a signature.
    """
    calls = {call.id: call for message in messages for call in message.tool_calls}
    contents: list[dict[str, Any]] = []
    for message in messages:
        role = "model" if message.role == "assistant" else "user"
        parts = _result(message, calls) if message.role == "tool" else _parts(message, signed=signed)
        if not parts:
            continue
        if contents and contents[-1]["role"] == role:
            contents[-1]["parts"] += parts
        else:
            contents.append({"role": role, "parts": parts})
    return contents


def _parts(message: ChatMessage, *, signed: bool) -> list[dict[str, Any]]:
    parts = [given for part in message.parts if (given := _part(part))]
    own = [part.signature for part in reasoning_of(message, _PROVIDER) if part.signature]
    if own and parts:
        parts[-1]["thoughtSignature"] = own[-1]
    for number, call in enumerate(message.tool_calls):
        function = {"name": call.name, "args": arguments_object(call.arguments), **_id(call.id)}
        part = {"functionCall": function}
        # Of calls side by side, only the first has a signature.
        signature = call.signature or (_NO_SIGNATURE if signed and number == 0 else None)
        parts.append(part if signature is None else {**part, "thoughtSignature": signature})
    return parts


def _result(message: ChatMessage, calls: Mapping[str, ToolCall]) -> list[dict[str, Any]]:
    call = calls.get(message.tool_call_id or "")
    name = call.name if call is not None else message.name or ""
    response = {"error" if message.is_error else "result": message.text}
    result = {"functionResponse": {"name": name, "response": response, **_id(message.tool_call_id or "")}}
    return [result, *(_part(part) for part in message.parts if isinstance(part, ImagePart | FilePart))]


def _id(call: str) -> dict[str, str]:
    """Return the id of a call to send, if it is Google's own."""
    return {} if not call or call.startswith(OWN_IDS) else {"id": call}


def _part(part: Part) -> dict[str, Any]:
    match part:
        case TextPart():
            return {"text": part.text} if part.text else {}
        case ImagePart(data=None) | FilePart(data=None):
            kind = part.media_type or mimetypes.guess_type(urlsplit(part.url or "").path)[0]
            address = {"fileUri": part.url}
            return {"fileData": {**address, "mimeType": kind} if kind else address}
        case ImagePart() | FilePart():
            data = base64.b64encode(part.data or b"").decode()
            return {"inlineData": {"mimeType": part.media_type, "data": data}}
        case ReasoningPart():
            return {}


def _tool(tool: Tool) -> dict[str, Any]:
    given: dict[str, Any] = {"name": tool.name, "parametersJsonSchema": tool.parameters}
    return {**given, "description": tool.description} if tool.description else given


def _tool_config(choice: ToolChoice) -> dict[str, Any]:
    modes = {"auto": "AUTO", "none": "NONE", "required": "ANY", "named": "ANY"}
    config: dict[str, Any] = {"mode": modes[choice.mode]}
    if choice.mode == "named":
        config["allowedFunctionNames"] = [choice.name]
    return {"functionCallingConfig": config}
