"""Ollama's own API, ``/api/chat``."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, ClassVar, Final
from urllib.parse import urlsplit

from msgspec import Raw, Struct
from msgspec.structs import replace

from ultra.clients.dialects.base import Dialect, messages_of, offered_tools, reasoning_of
from ultra.clients.dialects.decoders import AnswerDecoder, decode_stream, new_text
from ultra.clients.dialects.model_lists import read_ollama_models
from ultra.clients.dialects.tolerant import ABSENT, TolerantDecoder, value_of
from ultra.clients.dialects.tool_calls import ToolCalls, arguments_text, finish_with
from ultra.clients.dialects.usage import Count, counted, read_usage
from ultra.clients.wire.addresses import without_endings
from ultra.clients.wire.event_streams import BYTE_ORDER_MARK, LineSplitter
from ultra.clients.wire.finish_reasons import read_finish_reason
from ultra.errors import ModelError
from ultra.messages.chat import ImagePart, ReasoningPart
from ultra.messages.openai_form import tool_as_openai
from ultra.messages.reasoning import ReasoningDelta
from ultra.messages.rendering import told
from ultra.messages.results import Completion, Usage
from ultra.messages.tokens import estimate_request, estimate_tokens
from ultra.messages.tools import arguments_object

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ultra.clients.dialects.decoders import Decoding
    from ultra.clients.dialects.model_lists import ModelPage
    from ultra.clients.options import CallOptions
    from ultra.clients.wire.response_head import ResponseHead
    from ultra.messages.chat import ChatMessage, Part
    from ultra.messages.request import ModelRequest

__all__ = ["OllamaChat"]

_PORT: Final = 11434

_DEFAULT_WINDOW: Final = 4_096
"""Tokens that every server since version 0.6 gives to prompt and answer together, unless it is told."""

_LARGEST_WINDOW: Final = 32_768
"""Tokens that a server is asked for unasked: a window takes memory, whether it is used or not."""

_ANSWER: Final = 1_024
"""Tokens that are kept for an answer when no limit is given."""

_SURELY_WHOLE: Final = 1_500
"""Tokens: a shorter prompt fits into every window."""


class _Function(Struct):
    name: str | None = None
    arguments: dict[str, Any] | str | None = None


class _Call(Struct):
    id: str | None = None
    function: _Function | None = None


class _Message(Struct):
    essential: ClassVar = "content"

    content: str | None = None
    thinking: str | None = None
    tool_calls: list[_Call] | None = None


class _Usage(Struct):
    prompt_eval_count: Count = None
    eval_count: Count = None

    def normalized(self) -> Usage:
        """Return the counts in the sense of `Usage`."""
        return Usage(input=self.prompt_eval_count, output=self.eval_count)


class _Answer(Struct):
    """A whole answer or one line of a streamed one."""

    message: _Message | None = None
    model: str | None = None
    done: bool | None = None
    done_reason: str | None = None
    prompt_eval_count: Raw = ABSENT
    eval_count: Raw = ABSENT
    error: Raw = ABSENT


class _Assembly:
    """One answer put together from one object or from many lines, whose `thoughts` go to that list."""

    def __init__(self, head: ResponseHead, thoughts: list[ReasoningDelta] | None = None) -> None:
        self._head = head
        self._told = thoughts
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._calls = ToolCalls()
        self._last: _Answer | None = None
        self.usage: Usage | None = None

    @property
    def finished(self) -> bool:
        """Whether the last line has been seen."""
        return self._last is not None

    def add(self, answer: _Answer) -> str:
        """Add `answer` and return its text. Raises `ModelError` if it reports an error."""
        told = {
            "prompt_eval_count": value_of(answer.prompt_eval_count),
            "eval_count": value_of(answer.eval_count),
        }
        self.usage = read_usage(told, _Usage) or self.usage
        if error := value_of(answer.error):
            raise self._head.failure_inside({"error": error})
        if answer.done:
            self._last = answer
        message = answer.message or _Message()
        text = new_text(self._texts, message.content or "", last=self.finished)
        self._texts += filter(None, [text])
        if message.thinking and (thought := new_text(self._thoughts, message.thinking, last=self.finished)):
            self._thoughts.append(thought)
            if self._told is not None:
                self._told.append(ReasoningDelta(thought, self._head.provider))
        for call in message.tool_calls or ():  # each line has whole ones
            function = call.function or _Function()
            self._calls.add(id=call.id, name=function.name, arguments=arguments_text(function.arguments))
        return text

    def completion(self) -> Completion:
        """Return what has been put together."""
        last = self._last or _Answer()
        calls = self._calls.whole()
        # Older servers give no reason for an ordinary end.
        finish = read_finish_reason(last.done_reason or ("stop" if self.finished else None))
        thought = "".join(self._thoughts)
        return Completion(
            content="".join(self._texts),
            usage=self.usage,
            finish_reason=finish_with(calls, finish),
            request_id=self._head.request_id,
            model=last.model,
            reasoning=thought or None,
            tool_calls=calls,
            reasoning_parts=(ReasoningPart(thought, self._head.provider),) if calls and thought else (),
        )


_read_answer = TolerantDecoder(_Answer)

_IGNORED: Final = (b"event:", b"id:", b"retry:", b":")  # of events, as gateways send them


class _LineDecoder(AnswerDecoder):
    """One JSON object a line, the last of which says that it is done."""

    def __init__(self, head: ResponseHead) -> None:
        super().__init__(head)
        head.expect_documents()
        self._lines = LineSplitter()
        self._thoughts: list[ReasoningDelta] = []
        self._assembly = _Assembly(head, self._thoughts)
        self._heard = False

    def feed(self, data: bytes) -> Iterator[str]:
        """Yield the text of each line that `data` completes. Raises `ModelError`."""
        return self._texts(self._lines.feed(data))

    def flush(self) -> Iterator[str]:
        """Yield the text of a last line without a line end. Raises `ModelError`."""
        return self._texts(self._lines.flush())

    def completion(self) -> Completion:
        """Return the whole answer. Raises `ModelError` if the last line was not seen."""
        if not self.finished and not (self.terminated and self._heard):
            raise self.head.cut_off()
        return self._assembly.completion()

    @property
    def usage(self) -> Usage | None:
        """The tokens of the call, as far as the stream has told them."""
        return self._assembly.usage

    def _texts(self, lines: list[bytes]) -> Iterator[str]:
        for line in lines:
            if self.terminated:
                return
            data = line.strip().removeprefix(BYTE_ORDER_MARK).removeprefix(b"data:").strip()
            if data == b"[DONE]":
                self.terminated = True
            elif data and not data.startswith(_IGNORED):
                answer = self._answer(data)
                text = self._assembly.add(answer)
                self._heard = self._heard or bool(text)
                if self._thoughts:
                    yield from self._thoughts
                    self._thoughts.clear()
                yield text
                self.finished = self.terminated = self._assembly.finished

    def _answer(self, data: bytes) -> _Answer:
        if data[:1] not in b"{[":
            raise self.head.failure_inside(data)
        answer = self.head.read(_read_answer, data)
        if answer.message is None and not answer.done and self.head.reports_failure(data):
            raise self.head.failure_inside(data)
        return answer


class OllamaChat(Dialect):
    """``POST {base_url}/api/chat``. `base_url` may be a host alone, or a host and a port."""

    stream_decoder = _LineDecoder
    json_mode: ClassVar = {"format": "json"}
    image_urls = file_urls = False

    def __init__(self, model: str, *, provider: str, base_url: str) -> None:
        super().__init__(model, provider=provider, base_url=_whole_url(base_url))
        self.base_url = without_endings(
            self.base_url, "/v1/chat/completions", "/api/chat", "/api/generate", "/v1", "/api"
        )

    def headers(self, api_key: str) -> dict[str, str]:
        """Return the header of the key, if there is one."""
        return {"authorization": f"Bearer {api_key}"} if api_key else {}

    def url(self, *, stream: bool) -> str:  # noqa: ARG002 - one address for both
        """Return the address of the chat."""
        return f"{self.base_url}/api/chat"

    def models_url(self, after: str | None) -> str:  # noqa: ARG002 - one page
        """Return the address of the list of models."""
        return f"{self.base_url}/api/tags"

    def decode_models(self, content: bytes, head: ResponseHead) -> ModelPage:
        """Return one page of the list of models. Raises `ModelError`."""
        return read_ollama_models(content, head)

    def encode(self, request: ModelRequest, options: CallOptions, *, stream: bool) -> dict[str, Any]:
        """Return the JSON of `request`."""
        wanted = {
            "temperature": options.temperature,
            "top_p": options.top_p,
            "num_predict": options.max_tokens,
            "stop": options.stop_sequences,
            "seed": options.seed,
            "num_ctx": options.context_window or _window_for(request, options),
        }
        given = {name: value for name, value in wanted.items() if value is not None}
        return {
            "model": self.model,
            "messages": _messages(messages_of(request, options), self.provider),
            "tools": [tool_as_openai(tool) for tool in offered_tools(request)] or None,
            "format": request.output.schema if request.output else None,
            "options": given or None,
            "think": options.reasoning_effort,
            "stream": stream,  # Ollama streams unless told otherwise
        }

    def check(self, completion: Completion, request: ModelRequest) -> None:
        """Raise `ModelError` if the server read far less than the prompt: it cuts a prompt without a word."""
        read = completion.usage.input if completion.usage is not None else None
        # Images are not in it: models take them in so many tokens that no estimate holds for all.
        texts = tuple(replace(each, content="\n".join(_texts(each))) for each in request.messages)
        sent = estimate_request(replace(request, messages=texts))
        # An estimate may be three times too high.
        if read is not None and sent > _SURELY_WHOLE and read * 4 < sent:
            raise ModelError(
                f"the server cut the prompt: it read {read} tokens of about {sent}; give the model a larger "
                "window on the server, or let prompts fit into the one it has by context_window=",
                provider=self.provider,
                kind="bad_request",
                status=None,
                usage=completion.usage,
            )

    def decode(self, content: bytes, head: ResponseHead) -> Completion:
        """Return the plain answer. Raises `ModelError`."""
        answer = head.read(_read_answer, content)
        assembly = _Assembly(head)
        with counted(assembly):
            assembly.add(answer)
            if answer.message is None:
                raise head.failure_inside(content)
        return assembly.completion()

    def decode_whole(self, content: bytes, head: ResponseHead) -> Decoding:
        """Return the answer that `content` is: one object, or the lines of a stream that nobody asked for.

        In pieces. Raises `ModelError`.
        """
        if not content.lstrip().startswith((b"data:", *_IGNORED)):
            try:
                return self.decode(content, head)
            except ModelError as error:
                if error.kind != "protocol" or b"\n" not in content.strip():
                    raise
        return (yield from decode_stream(_LineDecoder(head), content))

    def decoder(self, head: ResponseHead) -> AnswerDecoder:
        """Return a decoder for one streamed answer: a plain one is a stream of one line."""
        return _LineDecoder(head)


def _messages(messages: list[ChatMessage], provider: str) -> list[dict[str, Any]]:
    """Return the messages as Ollama takes them: images apart, and results by the name of their tool.

    What the model thought before its calls goes back with them.
    """
    names = {call.id: call.name for message in messages for call in message.tool_calls}
    given: list[dict[str, Any]] = []
    for message in messages:
        images = [
            part.data for part in message.parts if isinstance(part, ImagePart) and part.data is not None
        ]
        said: dict[str, Any] = {"role": message.role, "content": "\n".join(_texts(message))}
        if images:
            said["images"] = [base64.b64encode(image).decode() for image in images]
        if message.tool_calls:
            own = [part.text for part in reasoning_of(message, provider) if part.text]
            if own:
                said["thinking"] = "".join(own)
            said["tool_calls"] = [
                {"function": {"name": call.name, "arguments": arguments_object(call.arguments)}}
                for call in message.tool_calls
            ]
        if message.role == "tool":
            said["tool_name"] = message.name or names.get(message.tool_call_id or "", "")
        given.append(said)
    return given


def _is_shown(part: Part) -> bool:
    """Return whether the part goes beside the text."""
    return isinstance(part, ImagePart) and part.data is not None


def _texts(message: ChatMessage) -> list[str]:
    """Return what is text in a message, and what stands in words for parts that Ollama does not take."""
    return [
        told(part) for part in message.parts if not isinstance(part, ReasoningPart) and not _is_shown(part)
    ]


def _window_for(request: ModelRequest, options: CallOptions) -> int | None:
    """Return the window to ask for; None: the server's own is large enough.

    It doubles from step to step, since the server loads the model again for each other window.
    """
    needed = estimate_request(request) + (options.max_tokens or _ANSWER)
    if options.system is not None and request.system is None:
        needed += estimate_tokens(options.system)
    if needed <= _DEFAULT_WINDOW:
        return None
    return min(_LARGEST_WINDOW, 1 << (needed - 1).bit_length())


def _whole_url(host: str) -> str:
    """Return `host` with what it leaves out: ``http``, and Ollama's port where no scheme implies one."""
    if "://" in host:
        return host
    try:
        parts = urlsplit(f"//{host}")
        port = parts.port or _PORT
    except ValueError:
        return host  # which is then refused as an address
    name = parts.hostname or "127.0.0.1"
    login, at, _ = parts.netloc.rpartition("@")
    return f"http://{login}{at}{f'[{name}]' if ':' in name else name}:{port}{parts.path}"
