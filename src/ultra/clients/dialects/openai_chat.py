"""OpenAI's chat completions, as OpenAI, Azure and many others offer them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode, urlsplit

import msgspec
from msgspec import Struct

from ultra.clients.dialects.base import Dialect, messages_of
from ultra.clients.dialects.decoders import EventDecoder
from ultra.clients.dialects.openai_responses import OpenAIResponses
from ultra.clients.dialects.usage import Count, read_usage
from ultra.clients.wire.addresses import has_version, without_endings
from ultra.messages.results import Completion, Usage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ultra.clients.options import CallOptions
    from ultra.clients.quirks import Quirks
    from ultra.clients.wire.response_head import ResponseHead
    from ultra.messages.request import ModelRequest
    from ultra.messages.results import FinishReason

__all__ = ["AzureOpenAIChat", "OpenAIChat"]

_FINISH: Final[Mapping[str, FinishReason]] = {
    "stop": "stop",
    "eos": "stop",  # Together
    "end_turn": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",  # Mistral
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "sensitive": "content_filter",  # Zhipu
    "refusal": "refusal",
}

# OpenRouter, vLLM, DeepSeek, Zhipu
_BROKEN_OFF: Final = ("error", "abort", "insufficient_system_resource", "network_error")

_AZURE_API_VERSION: Final = "2024-10-21"


class _Part(Struct):
    """Mistral and others send content as a list of these."""

    type: str = "text"
    text: str | None = None
    thinking: str | list[_Part] | None = None


class _Message(Struct):
    content: str | list[_Part] | None = None
    refusal: str | None = None
    reasoning_content: Any = None
    reasoning: Any = None


class _Choice(Struct):
    index: int | None = 0  # some servers send null where there is only one
    message: _Message | None = None
    delta: _Message | None = None
    finish_reason: str | None = None
    usage: Any = None  # Moonshot
    error: Any = None  # OpenRouter


class _Groq(Struct):
    usage: Any = None
    error: Any = None


class _Answer(Struct):
    """A whole answer or one chunk of a streamed one."""

    id: Any = None
    object: Any = None
    choices: list[_Choice] | None = None
    usage: Any = None
    x_groq: _Groq | None = None
    model: str | None = None
    error: Any = None
    message: Any = None
    type: Any = None
    code: Any = None

    @property
    def failure(self) -> dict[str, Any] | None:
        """The error body that stands here in place of an answer, or beside one; None if there is none."""
        if self.object == "error":  # older vLLM: the answer itself is the error
            return {"message": self.message, "type": self.type, "code": self.code}
        choices = (choice.error for choice in self.choices or ())
        found = (
            self.error or (self.x_groq.error if self.x_groq else None) or next(filter(None, choices), None)
        )
        return {"error": found} if found else None


class _PromptDetails(Struct):
    cached_tokens: Count = None


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
        return Usage(
            input=self.prompt_tokens,
            output=output,
            cached=next(
                (count for count in (cached, self.prompt_cache_hit_tokens) if count is not None),
                self.cached_tokens,
            ),
            reasoning=reasoning,
        )


class _Assembly:
    """One answer put together from one message or from many deltas."""

    def __init__(self, head: ResponseHead, *, streamed: bool) -> None:
        self._head = head
        self._streamed = streamed
        self._texts: list[str] = []
        self._reasoning: list[str] = []
        self._refusal: list[str] = []
        self._usage: Usage | None = None
        self._model: str | None = None
        self._id: str | None = None
        self.finish: str | None = None

    def add(self, answer: _Answer) -> str:
        """Add `answer` and return its text. Raises `ModelError` if it reports an error."""
        if failure := answer.failure:
            raise self._head.failure_inside(failure)
        self._model = answer.model or self._model
        if isinstance(answer.id, str):
            self._id = answer.id or self._id
        places = [answer.usage, answer.x_groq and answer.x_groq.usage]
        places += [choice.usage for choice in answer.choices or ()]
        found = (read_usage(place, _Usage) for place in places)
        self._usage = next(filter(None, found), self._usage)
        # Only the first of several choices is the answer.
        return "".join(self._choose(choice) for choice in answer.choices or () if not choice.index)

    def _choose(self, choice: _Choice) -> str:
        self.finish = choice.finish_reason or self.finish
        if self.finish in _BROKEN_OFF:
            raise self._head.error(f"the model broke off: {self.finish}", "server")
        # Perplexity sends both: beside a delta, a message is all the text so far.
        places = (choice.delta, choice.message) if self._streamed else (choice.message, choice.delta)
        message = next(filter(None, places), _Message())
        text, thought = _split(message.content)
        self._texts.append(text)
        # vLLM sends the same text under both names.
        told = message.reasoning_content or message.reasoning
        self._reasoning += [thought, told if isinstance(told, str) else ""]
        self._refusal.append(message.refusal or "")
        return text

    def completion(self) -> Completion:
        """Return what has been put together."""
        refusal = "".join(self._refusal) or None
        finish = _FINISH.get(self.finish or "")
        return Completion(
            content="".join(self._texts),
            usage=self._usage,
            finish_reason="refusal" if refusal and finish == "stop" else finish,
            request_id=self._head.request_id or self._id,  # OpenRouter names a call nowhere else
            model=self._model,
            reasoning="".join(self._reasoning) or None,
            refusal=refusal,
        )


def _split(content: str | list[_Part] | None) -> tuple[str, str]:
    """Return the text and the reasoning in `content`."""
    if content is None:
        return "", ""
    if isinstance(content, str):
        return content, ""
    texts = [part.text or "" for part in content if part.type == "text"]
    thoughts = ["".join(_split(part.thinking)) for part in content if part.type == "thinking"]
    return "".join(texts), "".join(thoughts)


_read_answer = msgspec.json.Decoder(_Answer).decode


class _ChunkDecoder(EventDecoder):
    """Chunks, ended by ``[DONE]`` or, at some servers, by nothing."""

    def __init__(self, head: ResponseHead) -> None:
        super().__init__(head)
        self._assembly = _Assembly(head, streamed=True)

    def read(self, name: str, data: bytes) -> str:
        """Return the text in one chunk. Raises `ModelError`."""
        if data == b"[DONE]":
            self.terminated = True
            return ""
        if name == "error":
            raise self.head.failure_inside(data)
        text = self._assembly.add(self.head.read(_read_answer, data))
        self.finished = self._assembly.finish is not None
        return text

    def completion(self) -> Completion:
        """Return the whole answer. Raises `ModelError` if no finish reason was seen."""
        if not self.finished:
            raise self.cut_off()
        return self._assembly.completion()


class OpenAIChat(Dialect):
    """``POST {base_url}/chat/completions``. `base_url` ends in the version, or is this whole address."""

    stream_decoder = _ChunkDecoder

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
        return self if address == self.base_url else self._at(address)

    def _at(self, address: str) -> OpenAIChat:
        return OpenAIChat(self.model, provider=self.provider, base_url=address)

    def headers(self, api_key: str) -> dict[str, str]:
        """Return the header of the key, if there is one."""
        return {"authorization": f"Bearer {api_key}"} if api_key else {}

    def url(self, *, stream: bool) -> str:  # noqa: ARG002 - one address for both
        """Return the address of the completions."""
        return f"{self.base_url}/chat/completions"

    def encode(self, request: ModelRequest, options: CallOptions, *, stream: bool) -> dict[str, Any]:
        """Return the JSON of `request`."""
        return {
            "model": self.model,
            "messages": [
                {"role": message.role, "content": message.content}
                for message in messages_of(request, options)
            ],
            "temperature": options.temperature,
            "top_p": options.top_p,
            "max_tokens": options.max_tokens,
            "stop": options.stop_sequences,
            "seed": options.seed,
            "reasoning_effort": options.reasoning_effort,
            "stream": True if stream else None,
            "stream_options": {"include_usage": True} if stream else None,
        }

    def decode(self, content: bytes, head: ResponseHead) -> Completion:
        """Return the plain answer. Raises `ModelError`."""
        answer = head.read(_read_answer, content)
        assembly = _Assembly(head, streamed=False)
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
            return self
        root = self.base_url
        address = root if has_version(root) else f"{root}/openai/v1"
        return OpenAIResponses(self.model, provider=self.provider, base_url=address)

    def headers(self, api_key: str) -> dict[str, str]:
        """Return the header of the key, if there is one."""
        return {"api-key": api_key} if api_key else {}

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
