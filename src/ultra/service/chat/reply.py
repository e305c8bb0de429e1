"""The bytes of chat completions: whole, and chunk by chunk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from ultra.service.event_stream import comment, data_event
from ultra.service.exchange import Writer
from ultra.service.extension import summary
from ultra.service.refusals import words_of_refusal
from ultra.service.usage import total_usage, usage_as_openai

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ultra.config.serving import KeepAlive
    from ultra.messages.chat import ReasoningPart
    from ultra.messages.results import FinishReason, ModelResponse, OrchestrationResult
    from ultra.service.chat.request import ChatRun
    from ultra.service.problems import Problem
    from ultra.service.shared_run import SharedRun

__all__ = ["DONE", "Chunks", "completion"]

DONE: Final = b"data: [DONE]\n\n"

_encode: Final = msgspec.json.Encoder().encode

_FINISH: Final[Mapping[FinishReason | None, str]] = {
    None: "stop",
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
    "refusal": "content_filter",
    "other": "length",  # the protocol has no word for it; this one says that the answer is not whole
}


def completion(chat: ChatRun, run: SharedRun, result: OrchestrationResult, answer: ModelResponse) -> bytes:
    """Return the body of a whole completion."""
    calls = [_tool_call(answer, number) for number in range(len(answer.tool_calls))]
    refusal = words_of_refusal(run)
    empty = None if calls or refusal else ""
    message: dict[str, Any] = {"role": "assistant", "content": answer.content or empty}
    if calls:
        message["tool_calls"] = calls
    message["refusal"] = refusal
    choice = {"index": 0, "message": message, "finish_reason": _finish(answer), "logprobs": None}
    body = {
        "id": f"chatcmpl-{run.run_id}",
        "object": "chat.completion",
        "created": run.created,
        "model": chat.model,
        "choices": [choice],
        "usage": usage_as_openai(total_usage(result)),
        "system_fingerprint": None,
    }
    if chat.extension is not None:
        body["ultra"] = summary(result, chat.extension.fields, single=chat.is_single)
    return _encode(body)


class Chunks(Writer):
    """Writes the events of one stream. Each is an object with one choice; nothing but `data:` lines."""

    def __init__(self, chat: ChatRun, run: SharedRun) -> None:
        self._chat = chat
        self._run = run
        self._head = {
            "id": f"chatcmpl-{run.run_id}",
            "object": "chat.completion.chunk",
            "created": run.created,
            "model": chat.model,
        }
        # A piece of text is between these two; no other empty string comes behind the first one.
        self._before, _, self._behind = self._chunk({"content": ""}).rpartition(b'""')
        self._has_thought = False

    def begin(self) -> bytes:
        """Return the chunk with the role."""
        return self._chunk({"role": "assistant", "content": ""})

    def alive(self, progress: str, keepalive: KeepAlive) -> bytes:
        """Return a chunk that says nothing, or a comment."""
        return comment(progress) if keepalive == "comment" else self._chunk({})

    def text(self, text: str) -> bytes:
        """Return a chunk with a piece of the answer."""
        return b"".join((self._before, _encode(text), self._behind))

    def reasoning(self, pieces: Sequence[ReasoningPart], *, begins: bool) -> bytes:
        """Return a chunk with a piece of the reasoning; of what is void, the protocol can only be silent."""
        text = "".join(piece.text for piece in pieces)
        if not text:
            return b""
        if begins and self._has_thought:
            text = f"\n\n{text}"
        self._has_thought = True
        return self._chunk({"reasoning_content": text})

    def untold_reasoning(self, answer: ModelResponse) -> bytes:  # noqa: ARG002 - it has one form
        """Return nothing: the protocol has no form for what a provider wants back."""
        return b""

    def end(self, result: OrchestrationResult, answer: ModelResponse) -> list[bytes]:
        """Return the chunks behind the text: tool calls, the extension, why it ends, and what it has used."""
        events = [
            self._chunk({"tool_calls": [{"index": number, **_tool_call(answer, number)}]})
            for number in range(len(answer.tool_calls))
        ]
        refusal = words_of_refusal(self._run)
        if refusal is not None:
            events.append(self._chunk({"refusal": refusal}))
        if self._chat.extension is not None:
            told = summary(result, self._chat.extension.fields, single=self._chat.is_single)
            events.append(self._chunk({}, ultra=told))
        events.append(self._chunk({}, finish=_finish(answer)))
        if self._chat.includes_usage:
            usage = usage_as_openai(total_usage(result))
            events.append(data_event({**self._head, "choices": [], "usage": usage}))
        return [*events, DONE]

    def failure(self, problem: Problem) -> bytes:
        """Return the error, and the end of the stream."""
        return data_event(problem.as_openai()) + DONE

    def _chunk(self, delta: dict[str, Any], finish: str | None = None, **more: object) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        chunk = {**self._head, "choices": [choice]}
        if self._chat.includes_usage:
            chunk["usage"] = None
        return data_event(chunk | more)


def _finish(answer: ModelResponse) -> str:
    if answer.tool_calls and answer.finish_reason in {None, "stop"}:
        return "tool_calls"
    return _FINISH[answer.finish_reason]


def _tool_call(answer: ModelResponse, number: int) -> dict[str, Any]:
    call = answer.tool_calls[number]
    kind: Literal["function"] = "function"
    return {"id": call.id, "type": kind, "function": {"name": call.name, "arguments": call.arguments}}
