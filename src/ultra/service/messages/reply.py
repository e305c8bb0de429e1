"""The bytes of Anthropic's messages: whole, and event by event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec
from msgspec.structs import replace

from ultra.messages.chat import ReasoningPart
from ultra.messages.reasoning import ends_block
from ultra.messages.tools import arguments_object
from ultra.service.error_shapes import anthropic_error
from ultra.service.event_stream import named_event
from ultra.service.exchange import Writer
from ultra.service.extension import summary
from ultra.service.reasoning import sealed
from ultra.service.refusals import words_of_refusal
from ultra.service.usage import total_usage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from ultra.config.serving import KeepAlive
    from ultra.messages.chat import ToolCall
    from ultra.messages.results import FinishReason, ModelResponse, OrchestrationResult, Usage
    from ultra.service.messages.request import MessageRun
    from ultra.service.problems import Problem
    from ultra.service.shared_run import SharedRun

__all__ = ["MessageEvents", "message"]

_PROVIDER: Final = "anthropic"

_encode: Final = msgspec.json.Encoder().encode

_STOP: Final[Mapping[FinishReason | None, str]] = {
    None: "end_turn",
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
    "refusal": "refusal",
    "other": "max_tokens",  # the protocol has no word for it; this one says that the answer is not whole
}


def message(asked: MessageRun, run: SharedRun, result: OrchestrationResult, answer: ModelResponse) -> bytes:
    """Return the body of a whole message."""
    content = _thoughts(asked, answer.reasoning_parts)
    if answer.content:
        content.append({"type": "text", "text": answer.content})
    content += map(_tool_use, answer.tool_calls)
    body = _head(asked, run) | {
        "content": content,
        "stop_reason": _stop_reason(answer),
        "stop_sequence": answer.stop_sequence,
        **_stop_details(run),
        "usage": _usage(total_usage(result)),
    }
    return _encode(body | _extension(asked, result))


class MessageEvents(Writer):
    """Writes the events of one stream: its blocks one after the other, each begun and ended."""

    def __init__(self, asked: MessageRun, run: SharedRun) -> None:
        self._asked = asked
        self._run = run
        self._head = _head(asked, run)
        self._blocks = 0
        self._block: Literal["text", "thinking"] | None = None
        self._thinks = ReasoningPart()  # in the block that goes on, without the words
        self._told: list[ReasoningPart] = []  # blocks of thinking that have ended, without their words

    def begin(self) -> bytes:
        """Return the start of the message, with the estimate of its tokens; the last event has the sum."""
        usage = {**_NO_USAGE, "input_tokens": self._asked.tokens}
        return _event("message_start", message={**self._head, "usage": usage})

    def alive(self, progress: str, keepalive: KeepAlive) -> bytes:  # noqa: ARG002 - it has one form
        """Return a ping: some clients take no notice of comments."""
        return _event("ping")

    def text(self, text: str) -> bytes:
        """Return a piece of the text, which begins its block if it is the first."""
        begun = b""
        if self._block != "text":
            begun = self._end_block() + self._start({"type": "text", "text": ""}, "text")
        return begun + self._delta({"type": "text_delta", "text": text})

    def reasoning(self, pieces: Sequence[ReasoningPart], *, begins: bool) -> bytes:
        """Return pieces of the thinking, each block of which begins and ends; what is void ends, too."""
        events = b""
        if begins and self._block == "thinking":
            self._thinks = ReasoningPart()  # so that no model gets it back
            events += self._end_block()
        for piece in pieces:
            if not (piece.text or ends_block(piece)):
                continue
            if self._block == "thinking" and not _goes_on(self._thinks, piece):
                events += self._end_block()
            shown = piece.text or self._block == "thinking"
            events += self._think(piece) if shown else self._end_block() + self._hidden(piece)
        return events

    def untold_reasoning(self, answer: ModelResponse) -> bytes:
        """Return the blocks of thinking that have not been told yet."""
        if not self._asked.shows_thinking:
            return b""
        ended = self._end_block() if self._block == "thinking" else b""  # it is told, once it has ended
        new = [part for part in answer.reasoning_parts if self._is_new(part)]
        return ended + (self.reasoning(new, begins=False) + self._end_block() if new else b"")

    def end(self, result: OrchestrationResult, answer: ModelResponse) -> Iterator[bytes]:
        """Yield the end of the text, thoughts, calls of tools, why it ends, and what it has used."""
        if self._block is not None:
            yield self._end_block()
        # A whole message has the thoughts first; here, some may be known once the text has been sent.
        yield self.untold_reasoning(answer)
        for call in answer.tool_calls:
            yield self._start(_tool_use(call) | {"input": {}})
            arguments = _encode(arguments_object(call.arguments)).decode()
            yield self._delta({"type": "input_json_delta", "partial_json": arguments})
            yield self._stop()
        yield _event(
            "message_delta",
            delta={
                "stop_reason": _stop_reason(answer),
                "stop_sequence": answer.stop_sequence,
                **_stop_details(self._run),
            },
            usage=_usage(total_usage(result)),
            **_extension(self._asked, result),
        )
        yield _event("message_stop")

    def failure(self, problem: Problem) -> bytes:
        """Return the error, which is the last event."""
        return named_event("error", anthropic_error(problem))

    def _think(self, piece: ReasoningPart) -> bytes:
        """Return a piece of a block of thinking, which begins with it, or goes on."""
        events = b""
        if self._block != "thinking":
            self._thinks = ReasoningPart(provider=piece.provider)
            block = {"type": "thinking", "thinking": "", "signature": ""}
            events += self._end_block() + self._start(block, "thinking")
        if piece.text:
            events += self._delta({"type": "thinking_delta", "thinking": piece.text})
        if ends_block(piece):
            self._thinks = replace(piece, text="")
            events += self._end_block()
        return events

    def _hidden(self, piece: ReasoningPart) -> bytes:
        """Return the block of thinking that is not shown."""
        self._told.append(piece)
        return self._start(_thinking(piece)) + self._stop()

    def _end_block(self) -> bytes:
        """Return the end of the block that goes on, if one does."""
        if self._block is None:
            return b""
        ended, self._block = self._block, None
        if ended == "text":
            return self._stop()
        self._told.append(self._thinks)
        signature = _signature(self._thinks)
        return self._delta({"type": "signature_delta", "signature": signature}) + self._stop()

    def _is_new(self, part: ReasoningPart) -> bool:
        """Return whether a part of the reasoning has not been told while it was written."""
        return replace(part, text="", id=None) not in [replace(each, id=None) for each in self._told]

    def _start(self, block: dict[str, Any], kind: Literal["text", "thinking"] | None = None) -> bytes:
        self._block = kind
        return _event("content_block_start", index=self._blocks, content_block=block)

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return _event("content_block_delta", index=self._blocks, delta=delta)

    def _stop(self) -> bytes:
        self._blocks += 1
        return _event("content_block_stop", index=self._blocks - 1)


def _event(kind: str, **fields: object) -> bytes:
    return named_event(kind, {"type": kind, **fields})


def _head(asked: MessageRun, run: SharedRun) -> dict[str, Any]:
    return {
        "id": f"msg_{run.run_id}",
        "type": "message",
        "role": "assistant",
        "model": asked.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": None,
    }


def _thoughts(asked: MessageRun, parts: Iterable[ReasoningPart]) -> list[dict[str, Any]]:
    """Return the blocks of what the writer thought, as far as its provider wants it back."""
    return [_thinking(part) for part in parts] if asked.shows_thinking else []


def _thinking(part: ReasoningPart) -> dict[str, Any]:
    if part.text:
        return {"type": "thinking", "thinking": part.text, "signature": _signature(part)}
    own = part.provider == _PROVIDER
    data = part.encrypted or part.signature or "" if own else sealed(part)
    return {"type": "redacted_thinking", "data": data}


def _signature(part: ReasoningPart) -> str:
    """Return the signature of a block: Anthropic's own, or what another provider wants back, sealed."""
    if part.provider == _PROVIDER and part.signature:
        return part.signature
    return sealed(replace(part, text=""))


def _goes_on(block: ReasoningPart, piece: ReasoningPart) -> bool:
    """Return whether a piece is of this block of thinking: Anthropic's thinking that is not shown is none."""
    return block.provider == piece.provider and not (piece.provider == _PROVIDER and piece.encrypted)


def _tool_use(call: ToolCall) -> dict[str, Any]:
    return {
        "type": "tool_use",
        "id": call.id,
        "name": call.name,
        "input": arguments_object(call.arguments),
    }


def _stop_reason(answer: ModelResponse) -> str:
    if answer.tool_calls and answer.finish_reason in {None, "stop"}:
        return "tool_use"
    if answer.stop_sequence is not None and answer.finish_reason == "stop":
        return "stop_sequence"
    return _STOP[answer.finish_reason]


def _stop_details(run: SharedRun) -> dict[str, Any]:
    """Return the field that tells more of a refusal."""
    if run.refused is None:
        return {}
    return {"stop_details": {"type": "refusal", "category": None, "explanation": words_of_refusal(run)}}


def _extension(asked: MessageRun, result: OrchestrationResult) -> dict[str, Any]:
    if asked.extension is None:
        return {}
    return {"ultra": summary(result, asked.extension.fields, single=asked.is_single)}


_NO_USAGE: Final = {
    "input_tokens": 0,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
    "output_tokens": 0,
}


def _usage(usage: Usage) -> dict[str, int]:
    """Return the tokens as Anthropic counts them: those of its cache are apart from the others."""
    cached, written = usage.cached or 0, usage.written or 0
    return _NO_USAGE | {
        "input_tokens": max(0, (usage.input or 0) - cached - written),
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": cached,
        "output_tokens": usage.output or 0,
    }
