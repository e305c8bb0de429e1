"""Ollama's own API, ``/api/chat``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from ultra.clients.dialects.usage import Count, read_usage
from ultra.clients.http.client import HTTPClient
from ultra.clients.http.event_streams import LineSplitter
from ultra.clients.http.streams import AnswerDecoder
from ultra.messages.results import Completion, Usage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ultra.clients.http.failures import Reply
    from ultra.clients.options import CallOptions
    from ultra.messages.results import FinishReason

__all__ = ["OllamaClient"]

_PORT: Final = 11434

_FINISH: Final[Mapping[str, FinishReason]] = {"stop": "stop", "length": "length"}


class _Message(Struct):
    content: str | None = None
    thinking: str | None = None


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
    prompt_eval_count: Any = None
    eval_count: Any = None
    error: Any = None


class _Assembly:
    """One answer put together from one object or from many lines."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._last: _Answer | None = None

    @property
    def finished(self) -> bool:
        """Whether the last line has been seen."""
        return self._last is not None

    def add(self, answer: _Answer) -> str:
        """Take `answer` up and return its text. Raises `ModelError` if it reports an error."""
        if answer.error:
            raise self._reply.failure_inside({"error": answer.error})
        if answer.done:
            self._last = answer
        message = answer.message or _Message()
        self._texts.append(message.content or "")
        self._thoughts.append(message.thinking or "")
        return self._texts[-1]

    def completion(self) -> Completion:
        """Return what has been put together."""
        last = self._last or _Answer()
        counts = {"prompt_eval_count": last.prompt_eval_count, "eval_count": last.eval_count}
        return Completion(
            content="".join(self._texts),
            usage=read_usage(counts, _Usage),
            # Older servers give no reason for an ordinary end.
            finish_reason=_FINISH.get(last.done_reason or "stop"),
            request_id=self._reply.request_id,
            model=last.model,
            reasoning="".join(self._thoughts) or None,
        )


_read_answer = msgspec.json.Decoder(_Answer).decode


class _LineDecoder(AnswerDecoder):
    """One JSON object a line, the last of which says that it is done."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply)
        self._lines = LineSplitter()
        self._assembly = _Assembly(reply)

    def feed(self, data: bytes) -> Iterator[str]:
        """Yield the text of each line that `data` completes. Raises `ModelError`."""
        return self._texts(self._lines.feed(data))

    def flush(self) -> Iterator[str]:
        """Yield the text of a last line without a line end. Raises `ModelError`."""
        return self._texts(self._lines.flush())

    def completion(self) -> Completion:
        """Return the whole answer. Raises `ModelError` if the last line was not seen."""
        if not self.finished:
            raise self.reply.cut_off()
        return self._assembly.completion()

    def _texts(self, lines: list[bytes]) -> Iterator[str]:
        for line in lines:
            if self.terminated:
                return
            if line.strip():
                yield self._assembly.add(self.reply.read(_read_answer, line))
                self.finished = self.terminated = self._assembly.finished


class OllamaClient(HTTPClient):
    """A model behind ``POST {base_url}/api/chat``.

    `base_url` may be written like ``OLLAMA_HOST``: a host alone, or a host and a port.
    `reasoning_effort` is sent as ``think``.
    """

    def __init__(self, model: str, *, base_url: str, **settings: Any) -> None:  # noqa: ANN401
        super().__init__(model, base_url=_whole_url(base_url), **settings)

    def decode(self, content: bytes, reply: Reply) -> Completion:
        """Read a plain answer. Raises `ModelError`."""
        answer = reply.read(_read_answer, content)
        assembly = _Assembly(reply)
        assembly.add(answer)
        if answer.message is None:
            raise reply.failure_inside(content)
        return assembly.completion()

    def decoder(self, reply: Reply) -> AnswerDecoder:
        """Return a decoder for one streamed answer."""
        return _LineDecoder(reply)

    def _authorization(self, api_key: str) -> dict[str, str]:
        return {"authorization": f"Bearer {api_key}"} if api_key else {}

    def _url(self, *, stream: bool) -> str:  # noqa: ARG002 - one address for both
        return f"{self._base_url}/api/chat"

    def _payload(self, prompt: str, options: CallOptions, *, stream: bool) -> dict[str, Any]:
        messages = [{"role": "system", "content": options.system}] if options.system else []
        wanted = {
            "temperature": options.temperature,
            "top_p": options.top_p,
            "num_predict": options.max_tokens,
            "stop": options.stop_sequences,
            "seed": options.seed,
        }
        given = {name: value for name, value in wanted.items() if value is not None}
        return {
            "model": self.model,
            "messages": [*messages, {"role": "user", "content": prompt}],
            "options": given or None,
            "think": options.reasoning_effort,
            "stream": stream,  # Ollama streams unless told otherwise
        }


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
