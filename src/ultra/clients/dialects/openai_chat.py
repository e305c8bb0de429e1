"""OpenAI's chat completions, as OpenAI, Azure and many others offer them."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any, ClassVar, Final
from urllib.parse import quote, urlencode, urlsplit

from msgspec import Raw, Struct

from ultra.clients.dialects.base import Dialect, messages_of, reasoning_of
from ultra.clients.dialects.decoders import EventDecoder, new_text
from ultra.clients.dialects.model_lists import read_openai_models
from ultra.clients.dialects.openai_responses import OpenAIResponses
from ultra.clients.dialects.tolerant import ABSENT, TolerantDecoder, value_of
from ultra.clients.dialects.tool_calls import ToolCalls, arguments_text, finish_with
from ultra.clients.dialects.usage import Count, counted, read_usage, with_total
from ultra.clients.wire.addresses import has_version, without_endings
from ultra.clients.wire.finish_reasons import read_finish_reason
from ultra.errors import BadCall
from ultra.messages.chat import ReasoningPart
from ultra.messages.openai_form import (
    message_as_openai,
    messages_as_openai,
    schema_as_openai,
    tool_as_openai,
    tool_choice_as_openai,
)
from ultra.messages.reasoning import ReasoningDelta
from ultra.messages.results import Completion, Usage

if TYPE_CHECKING:
    from ultra.clients.dialects.model_lists import ModelPage
    from ultra.clients.options import CallOptions
    from ultra.clients.quirks import Quirks
    from ultra.clients.wire.response_head import ResponseHead
    from ultra.messages.chat import ChatMessage
    from ultra.messages.request import ModelRequest

__all__ = ["AzureOpenAIChat", "OpenAIChat"]

# OpenRouter, vLLM, DeepSeek, Zhipu
_BROKEN_OFF: Final = ("error", "abort", "insufficient_system_resource", "network_error")

_AZURE_API_VERSION: Final = "2024-10-21"


class _Part(Struct):
    """Mistral and others send content as a list of these."""

    type: str = "text"
    text: str | None = None
    thinking: str | list[_Part] | None = None


class _Function(Struct):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class _Google(Struct):
    thought_signature: str | None = None


class _ExtraContent(Struct):
    google: _Google | None = None


class _Call(Struct):
    """A tool call, or a piece of one."""

    index: int | None = None
    id: str | None = None
    function: _Function | None = None
    extra_content: _ExtraContent | None = None  # Gemini's form of this API


class _Message(Struct):
    essential: ClassVar = "content"

    content: str | list[_Part | str] | _Part | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_Call] | None = None
    function_call: _Function | None = None  # the older form, for one call


class _Choice(Struct):
    index: int | None = 0  # some servers send null where there is only one
    message: _Message | None = None
    delta: _Message | None = None
    finish_reason: str | None = None
    usage: Raw = ABSENT  # Moonshot
    error: Raw = ABSENT  # OpenRouter


class _Groq(Struct):
    usage: Raw = ABSENT
    error: Raw = ABSENT


class _Answer(Struct):
    """A whole answer or one chunk of a streamed one."""

    id: str | None = None
    object: str | None = None
    choices: list[_Choice] | None = None
    usage: Raw = ABSENT
    x_groq: _Groq | None = None
    model: str | None = None
    error: Raw = ABSENT
    base_resp: Raw = ABSENT  # MiniMax
    message: Raw = ABSENT
    type: Raw = ABSENT
    code: Raw = ABSENT

    @property
    def failure(self) -> dict[str, Any] | None:
        """The error body that stands here in place of an answer, or beside one; None if there is none."""
        if self.object == "error":  # older vLLM: the answer itself is the error
            return {
                "message": value_of(self.message),
                "type": value_of(self.type),
                "code": value_of(self.code),
            }
        groq = self.x_groq.error if self.x_groq else ABSENT
        for place in (self.error, groq, *[choice.error for choice in self.choices or ()]):
            if place is not ABSENT and (found := value_of(place)):
                return {"error": found}
        if self.base_resp is ABSENT:
            return None
        refused = value_of(self.base_resp)
        failed = isinstance(refused, dict) and refused.get("status_code")
        return {"base_resp": refused} if failed else None


class _PromptDetails(Struct):
    cached_tokens: Count = None
    cache_write_tokens: Count = None


class _OutputDetails(Struct):
    reasoning_tokens: Count = None


class _Usage(Struct):
    prompt_tokens: Count = None
    completion_tokens: Count = None
    total_tokens: Count = None
    prompt_cache_hit_tokens: Count = None  # DeepSeek
    cached_tokens: Count = None  # Moonshot, Together
    reasoning_tokens: Count = None  # Perplexity
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _OutputDetails | None = None

    def normalized(self) -> Usage:
        """Return the counts in the sense of `Usage`."""
        cached = self.prompt_tokens_details.cached_tokens if self.prompt_tokens_details else None
        reasoning = self.reasoning_tokens
        if self.completion_tokens_details and self.completion_tokens_details.reasoning_tokens is not None:
            reasoning = self.completion_tokens_details.reasoning_tokens
        output = self.completion_tokens
        if (
            output is not None
            and reasoning
            and self.total_tokens == (self.prompt_tokens or 0) + output + reasoning
        ):
            output += reasoning  # xAI counts reasoning beside the completion
        usage = Usage(
            input=self.prompt_tokens,
            output=output,
            cached=next(
                (count for count in (cached, self.prompt_cache_hit_tokens) if count is not None),
                self.cached_tokens,
            ),
            written=self.prompt_tokens_details.cache_write_tokens if self.prompt_tokens_details else None,
            reasoning=reasoning,
        )
        return with_total(usage, self.total_tokens)


class _Assembly:
    """One answer put together from one message or, with a list for its `thoughts`, from many deltas."""

    def __init__(self, head: ResponseHead, thoughts: list[ReasoningDelta] | None = None) -> None:
        self._head = head
        self._streamed = thoughts is not None
        self._thoughts = thoughts
        self._texts: list[str] = []
        self._reasoning: list[str] = []
        self._refusal: list[str] = []
        self._calls = ToolCalls()
        self._newer_calls = False
        self.usage: Usage | None = None
        self._model: str | None = None
        self._id: str | None = None
        self.finish: str | None = None

    def add(self, answer: _Answer) -> str:
        """Add `answer` and return its text. Raises `ModelError` if it reports an error."""
        choices = answer.choices or ()
        groq = answer.x_groq.usage if answer.x_groq else ABSENT
        for place in (answer.usage, groq, *[choice.usage for choice in choices]):
            if place is not ABSENT and (usage := read_usage(value_of(place), _Usage)):
                self.usage = usage
                break
        if failure := answer.failure:
            raise self._head.failure_inside(failure)
        self._model = answer.model or self._model
        self._id = answer.id or self._id
        # Only the first of several choices is the answer.
        return "".join([self._choose(choice) for choice in choices if not choice.index])

    def _choose(self, choice: _Choice) -> str:
        self.finish = choice.finish_reason or self.finish
        if self.finish is not None and self.finish.lower() in _BROKEN_OFF:
            raise self._head.error(f"the model broke off: {self.finish}", "server")
        # Perplexity sends both: beside a delta, a message is all the text so far.
        places = (choice.delta, choice.message) if self._streamed else (choice.message, choice.delta)
        message = next(filter(None, places), _Message())
        text, thought = _split(message.content)
        if self._streamed:
            last = self.finish is not None
            text = new_text(self._texts, text, last=last, whole=choice.delta is None)
            thought = new_text(self._reasoning, thought, last=last, whole=choice.delta is None)
        # vLLM sends the same text under both names.
        told = message.reasoning_content or message.reasoning or ""
        if self._streamed and choice.delta is None and self.finish is not None and self._reasoning:
            told = ""
        self._texts += filter(None, [text])
        if thought or told:
            self._think(thought, told)
        self._refusal += filter(None, [message.refusal])
        if not (self._streamed and choice.delta is None and self._calls):  # a message repeats what it had
            self._add_calls(message)
        return text

    def _think(self, *thoughts: str) -> None:
        found = [thought for thought in thoughts if thought]
        self._reasoning += found
        if self._thoughts is not None:
            self._thoughts += [ReasoningDelta(thought, self._head.provider) for thought in found]

    def _add_calls(self, message: _Message) -> None:
        for call in message.tool_calls or ():
            function = call.function or _Function()
            google = call.extra_content.google if call.extra_content else None
            self._calls.add(
                index=call.index,
                id=call.id,
                name=function.name,
                arguments=arguments_text(function.arguments),
                signature=google.thought_signature if google else None,
            )
        self._newer_calls = self._newer_calls or bool(message.tool_calls)
        if message.function_call is not None and not self._newer_calls:  # some send both
            old = message.function_call
            self._calls.add(index=0, name=old.name, arguments=arguments_text(old.arguments))

    def completion(self) -> Completion:
        """Return what has been put together."""
        refusal = "".join(self._refusal) or None
        finish = read_finish_reason(self.finish)
        calls = self._calls.whole(cut=finish == "length")
        finish = finish_with(calls, finish)
        thought = "".join(self._reasoning)
        return Completion(
            content="".join(self._texts),
            usage=self.usage,
            finish_reason="refusal" if refusal and finish in {None, "stop"} else finish,
            request_id=self._head.request_id or self._id,  # OpenRouter names a call nowhere else
            model=self._model,
            reasoning=thought or None,
            refusal=refusal,
            tool_calls=calls,
            # DeepSeek and Moonshot want it back for as long as the turn goes on.
            reasoning_parts=(ReasoningPart(thought, self._head.provider),) if calls and thought else (),
        )


def _split(content: str | list[_Part | str] | list[_Part] | _Part | None) -> tuple[str, str]:
    """Return the text and the reasoning in `content`."""
    if content is None:
        return "", ""
    if isinstance(content, str):
        return content, ""
    parts = [content] if isinstance(content, _Part) else content
    texts: list[str] = []
    thoughts: list[str] = []
    for part in parts:
        if isinstance(part, str):
            texts.append(part)
        elif part.type in _TEXTS:
            texts.append(part.text or "")
        elif part.type in _THOUGHTS:
            thoughts.append("".join(_split(part.thinking)) or part.text or "")
    return "".join(texts), "".join(thoughts)


_TEXTS: Final = frozenset({"text", "output_text", "input_text"})
_THOUGHTS: Final = frozenset({"thinking", "reasoning", "reasoning_text", "summary_text"})

_read_answer = TolerantDecoder(_Answer)


class _ChunkDecoder(EventDecoder):
    """Chunks, ended by ``[DONE]`` or, at some servers, by nothing."""

    def __init__(self, head: ResponseHead) -> None:
        super().__init__(head)
        self._assembly = _Assembly(head, self.thoughts)

    def read(self, name: str, data: bytes) -> str:  # noqa: ARG002 - the chunks have no names
        """Return the text in one chunk. Raises `ModelError`."""
        answer = self.head.read(_read_answer, data)
        if not answer.choices and answer.usage is ABSENT and self.head.reports_failure(data):
            raise self.head.failure_inside(data)
        text = self._assembly.add(answer)
        self.finished = self._assembly.finish is not None
        return text

    def completion(self) -> Completion:
        """Return the whole answer. Raises `ModelError` if no finish reason was seen."""
        self.check_end()
        return self._assembly.completion()

    @property
    def usage(self) -> Usage | None:
        """The tokens of the call, as far as the stream has told them."""
        return self._assembly.usage


class OpenAIChat(Dialect):
    """``POST {base_url}/chat/completions``. `base_url` ends in the version, or is this whole address."""

    stream_decoder = _ChunkDecoder
    json_mode: ClassVar = {"response_format": {"type": "json_object"}}

    cache_hints = False  # whether `cache_control` is sent
    signed_calls = False  # whether calls go back with their signatures
    shows_when_asked = False  # whether `reasoning` asks for what the model thinks

    def __init__(self, model: str, *, provider: str, base_url: str) -> None:
        super().__init__(model, provider=provider, base_url=base_url)
        self.base_url = without_endings(self.base_url, "/chat/completions", "/completions", "/responses")

    def adapted(self, quirks: Quirks) -> Dialect:
        """Return this dialect at the right address, or the Responses API at it."""
        address = self.base_url
        if quirks.versioned and not has_version(address):
            address = f"{address}/v1"
        if quirks.responses:
            return OpenAIResponses(self.model, provider=self.provider, base_url=address)
        return self._formed(quirks, address)

    def _formed(self, quirks: Quirks, address: str) -> OpenAIChat:
        """Return this dialect at `address`, with what only some servers take."""
        names = ("cache_hints", "signed_calls", "shows_when_asked")
        same = all(getattr(self, name) == getattr(quirks, name) for name in names)
        if same and address == self.base_url:
            return self
        formed = copy(self)
        formed.base_url = address
        for name in names:
            setattr(formed, name, getattr(quirks, name))
        return formed

    def headers(self, api_key: str) -> dict[str, str]:
        """Return the header of the key, if there is one."""
        return {"authorization": f"Bearer {api_key}"} if api_key else {}

    def url(self, *, stream: bool) -> str:  # noqa: ARG002 - one address for both
        """Return the address of the completions."""
        return f"{self.base_url}/chat/completions"

    def models_url(self, after: str | None) -> str:  # noqa: ARG002 - one page
        """Return the address of the list of models."""
        return f"{self.base_url}/models"

    def decode_models(self, content: bytes, head: ResponseHead) -> ModelPage:
        """Return one page of the list of models. Raises `ModelError`."""
        return read_openai_models(content, head)

    def encode(self, request: ModelRequest, options: CallOptions, *, stream: bool) -> dict[str, Any]:
        """Return the JSON of `request`."""
        choice = request.tool_choice
        return {
            "model": self.model,
            "messages": messages_as_openai(
                messages_of(request, options), cache_hints=self.cache_hints, encode=self._message
            ),
            "tools": [tool_as_openai(tool) for tool in request.tools] or None,
            "tool_choice": tool_choice_as_openai(choice) if choice and request.tools else None,
            "parallel_tool_calls": choice.parallel if choice and request.tools else None,
            "response_format": schema_as_openai(request.output) if request.output else None,
            "temperature": options.temperature,
            "top_p": options.top_p,
            "max_tokens": options.max_tokens,
            "stop": options.stop_sequences,
            "seed": options.seed,
            "reasoning_effort": options.reasoning_effort,
            "reasoning": {"enabled": True} if options.show_reasoning and self.shows_when_asked else None,
            "stream": True if stream else None,
            "stream_options": {"include_usage": True} if stream else None,
        }

    def _message(self, message: ChatMessage) -> dict[str, Any]:
        given = message_as_openai(message, cache_hints=self.cache_hints)
        if self.signed_calls:
            for call, sent in zip(message.tool_calls, given.get("tool_calls", ()), strict=True):
                if call.signature is not None:
                    sent["extra_content"] = {"google": {"thought_signature": call.signature}}
        own = [part.text for part in reasoning_of(message, self.provider) if part.text]
        if own and message.tool_calls:
            given["reasoning_content"] = "".join(own)
        return given

    def decode(self, content: bytes, head: ResponseHead) -> Completion:
        """Return the plain answer. Raises `ModelError`."""
        answer = head.read(_read_answer, content)
        assembly = _Assembly(head)
        with counted(assembly):
            assembly.add(answer)
            if not answer.choices:
                raise head.failure_inside(content)
            if assembly.finish is None and answer.choices[0].message is None:
                raise head.malformed("a choice without message and finish_reason")
        return assembly.completion()


class AzureOpenAIChat(OpenAIChat):
    """A deployment at Azure. `base_url` is the resource, or an endpoint with a path.

    Args:
        model: the deployment, or the model where `base_url` has a path.
        provider: named in errors.
        base_url: see above. ``/openai`` behind the resource, and the path of a deployment, may stand in it.
        api_version: Azure's; sent with a bare resource, and wherever it is given.
    """

    def __init__(self, model: str, *, provider: str, base_url: str, api_version: str | None = None) -> None:
        super().__init__(model, provider=provider, base_url=base_url)
        self._api_version = api_version
        # What the bare resource means, written out.
        self.base_url = without_endings(
            self.base_url, f"/openai/deployments/{quote(model, safe='')}", "/openai/deployments", "/openai"
        )

    def adapted(self, quirks: Quirks) -> Dialect:
        """Return this dialect, or Azure's Responses API."""
        if not quirks.responses:
            return self._formed(quirks, self.base_url)
        root = self.base_url
        address = root if has_version(root) else f"{root}/openai/v1"
        return OpenAIResponses(self.model, provider=self.provider, base_url=address)

    def headers(self, api_key: str) -> dict[str, str]:
        """Return the header of the key, if there is one."""
        return {"api-key": api_key} if api_key else {}

    def models_url(self, after: str | None) -> str:
        """Return the address of the list of models; only an endpoint with a path has one of its own."""
        if not urlsplit(self.base_url).path.strip("/"):
            raise BadCall(
                f"{self.provider} does not list the deployments of a resource; see them in its portal, or "
                "give an endpoint with a path as base_url: https://name.openai.azure.com/openai/v1"
            )
        version = f"?{urlencode({'api-version': self._api_version})}" if self._api_version else ""
        return f"{super().models_url(after)}{version}"

    def url(self, *, stream: bool) -> str:  # noqa: ARG002 - one address for both
        """Return the address of the deployment's completions."""
        version = self._api_version
        path = urlsplit(self.base_url).path
        if not path.strip("/"):
            version = version or _AZURE_API_VERSION
            path = f"/openai/deployments/{quote(self.model, safe='')}"
        root = self.base_url.removesuffix(urlsplit(self.base_url).path)
        query = f"?{urlencode({'api-version': version})}" if version else ""
        return f"{root}{path}/chat/completions{query}"
