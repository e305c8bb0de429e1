"""The events of a response as they happen: each has its number, from 0 without gaps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from ultra.messages.reasoning import JoinedReasoning, ends_block
from ultra.service.event_stream import comment, named_event
from ultra.service.exchange import Writer
from ultra.service.refusals import words_of_refusal
from ultra.service.responses.items import (
    call_item,
    ended,
    failed,
    message_id,
    message_item,
    panel_item,
    reasoning_item,
    refusal_part,
    response_object,
    status_of,
    summary_part,
    text_part,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ultra.config.serving import KeepAlive
    from ultra.messages.chat import ReasoningPart, ToolCall
    from ultra.messages.results import ModelResponse, OrchestrationResult
    from ultra.service.problems import Problem
    from ultra.service.responses.shape import ResponseShape, RunOfResponse

__all__ = ["ResponseEvents"]


class ResponseEvents(Writer):
    """Writes the events of one stream. Those up to the number `after` are made, and not sent.

    Attributes:
        output: the items that have ended.
        renewals: how often the text was started again.
    """

    def __init__(self, shape: ResponseShape, run: RunOfResponse, *, after: int = -1) -> None:
        self.output: list[dict[str, Any]] = []
        self.renewals = 0
        self._shape = shape
        self._run = run
        self._after = after
        self._numbers = 0
        self._items = 0
        self._text: list[str] = []
        self._is_in_message = False
        self._is_in_text = False
        self._thoughts: JoinedReasoning | None = None  # of the item of reasoning that goes on
        self._has_summary = False
        self._later = JoinedReasoning()  # what was thought behind the beginning of the message
        self._told: list[ReasoningPart] = []  # in items that have ended

    def begin(self) -> bytes:
        """Return the two events with which every response begins."""
        response = response_object(self._shape, self._run)
        return self._event("response.created", response=response) + self._event(
            "response.in_progress", response=response
        )

    def queue(self) -> bytes:
        """Return the two events with which a response in the background begins."""
        response = response_object(self._shape, self._run, status="queued")
        return self._event("response.created", response=response) + self._event(
            "response.queued", response=response
        )

    def start(self) -> bytes:
        """Return what tells that a response in the background is under way."""
        return self._event("response.in_progress", response=response_object(self._shape, self._run))

    def alive(self, progress: str, keepalive: KeepAlive) -> bytes:  # noqa: ARG002 - it has one form
        """Return a comment: strict clients take no events but those of the protocol."""
        return comment(progress)

    def text(self, text: str) -> bytes:
        """Return a piece of the text, ahead of which its message begins if it is the first."""
        begun = b"" if self._is_in_message else self._end_reasoning() + self._begin_message()
        begun += b"" if self._is_in_text else self._begin_text()
        self._text.append(text)
        return begun + self._part_event(0, "response.output_text.delta", delta=text, logprobs=[])

    def reasoning(self, pieces: Sequence[ReasoningPart], *, begins: bool) -> bytes:
        """Return pieces of the reasoning, each block of which is an item; one that is void ends, too."""
        if begins:
            self._later = JoinedReasoning()
        events = self._end_reasoning(is_void=True) if begins else b""
        for piece in pieces:
            if self._is_in_message:
                self._later.add(piece)
            elif piece.text or ends_block(piece):
                events += self._think(piece)
        return events

    def untold_reasoning(self, answer: ModelResponse) -> bytes:
        """Return the items of reasoning that have not been told yet, each of a block."""
        ended = self._end_reasoning()  # it is told, once it has ended
        new = [part for part in answer.reasoning_parts if self._is_new(part)]
        return ended + b"".join(self._think(part) + self._end_reasoning() for part in new)

    def renew(self) -> bytes:
        """Return the end of a text that is void, since another one is written: a message that is cut.

        It is no part of the whole response.
        """
        ended = self._end_message("incomplete", None, is_void=True)
        self._text = []
        self.renewals += 1
        return ended

    def end(
        self, result: OrchestrationResult, answer: ModelResponse, *, at: float | None = None
    ) -> Iterator[bytes]:
        """Yield the end of the text, what the writer thought, calls of tools, and the whole response.

        `at`: when the run ended, in seconds of Unix time; None: now.
        """
        words = words_of_refusal(self._run)
        said_all = self._is_in_message
        yield self._end_reasoning()
        if said_all:
            yield self._end_message(status_of(answer, self._run), words)
        # A whole response has the reasoning first; here, some is known once the text has been sent.
        yield self.reasoning(self._later.parts(), begins=False) + self._end_reasoning()
        yield self.untold_reasoning(answer)
        if not said_all and not answer.tool_calls:  # nothing was said; clients look for a message yet
            yield self._begin_message()
            if words is None:
                yield self._begin_text()
            yield self._end_message(status_of(answer, self._run), words)
        for number, call in enumerate(answer.tool_calls):
            yield from self._call(number, call)
        panel = panel_item(self._shape, self._run, result)
        if panel is not None:
            yield self._added({**panel, "status": "in_progress"})
            yield self._done(panel)
        response = ended(self._shape, self._run, result, answer, self.output, at=at)
        yield self._event(f"response.{response['status']}", response=response)

    def failure(self, problem: Problem) -> bytes:
        """Return the error, as an event which clients raise, and the failed response."""
        response = failed(self._shape, self._run, problem, self._output_so_far())
        told = problem.as_openai()["error"]
        return self._event(
            "error", code=told["code"], message=told["message"], param=told["param"], error=told
        ) + self._event("response.failed", response=response)

    def cancelled(self) -> bytes:
        """Return the end of a response that was cancelled, for which the protocol has no event of its own."""
        response = response_object(self._shape, self._run, status="cancelled", output=self._output_so_far())
        return self._event("response.failed", response=response)

    def _output_so_far(self) -> list[dict[str, Any]]:
        output = list(self.output)
        if self._is_in_message:
            text = text_part("".join(self._text))
            output.append(message_item(self._run, "incomplete", text, number=self.renewals))
        return output

    # --- items -------------------------------------------------------------------------------------------

    def _begin_message(self) -> bytes:
        self._is_in_message = True
        return self._added(message_item(self._run, "in_progress", number=self.renewals))

    def _begin_text(self) -> bytes:
        self._is_in_text = True
        return self._part_event(0, "response.content_part.added", part=text_part(""))

    def _end_message(
        self, status: Literal["completed", "incomplete"], refusal: str | None, *, is_void: bool = False
    ) -> bytes:
        parts: list[dict[str, Any]] = []
        events = b""
        if self._is_in_text:
            text = "".join(self._text)
            parts.append(text_part(text))
            events += self._part_event(0, "response.output_text.done", text=text, logprobs=[])
            events += self._part_event(0, "response.content_part.done", part=parts[0])
        if refusal is not None:
            number = len(parts)
            parts.append(refusal_part(refusal))
            events += self._part_event(number, "response.content_part.added", part=refusal_part(""))
            events += self._part_event(number, "response.refusal.delta", delta=refusal)
            events += self._part_event(number, "response.refusal.done", refusal=refusal)
            events += self._part_event(number, "response.content_part.done", part=parts[-1])
        self._is_in_message = self._is_in_text = False
        item = message_item(self._run, status, *parts, number=self.renewals)
        return events + self._done(item, is_void=is_void)

    def _think(self, piece: ReasoningPart) -> bytes:
        """Return a piece of an item of reasoning, which begins with it, or goes on."""
        events = b""
        if self._thoughts is None:
            self._thoughts = JoinedReasoning()
            self._has_summary = False
            events += self._added(reasoning_item(self._run, len(self._told)))
        self._thoughts.add(piece)
        if piece.text:
            if not self._has_summary:
                self._has_summary = True
                part = summary_part("")
                events += self._summary_event("response.reasoning_summary_part.added", part=part)
            events += self._summary_event("response.reasoning_summary_text.delta", delta=piece.text)
        return events + self._end_reasoning() if ends_block(piece) else events

    def _end_reasoning(self, *, is_void: bool = False) -> bytes:
        """Return the end of the item of reasoning that goes on, if one does; a void one is no output."""
        if self._thoughts is None:
            return b""
        (part,), self._thoughts = self._thoughts.parts(), None
        events = b""
        if self._has_summary:
            events += self._summary_event("response.reasoning_summary_text.done", text=part.text)
            summary = summary_part(part.text)
            events += self._summary_event("response.reasoning_summary_part.done", part=summary)
        item = reasoning_item(self._run, len(self._told), part, encrypted=self._shape.includes_encrypted)
        self._told.append(part)
        return events + self._done(item, is_void=is_void)

    def _is_new(self, part: ReasoningPart) -> bool:
        """Return whether a part of the reasoning has not been told while it was written."""
        return _seal(part) not in map(_seal, self._told)

    def _summary_event(self, kind: str, **fields: object) -> bytes:
        item_id = reasoning_item(self._run, len(self._told))["id"]
        return self._event(kind, item_id=item_id, output_index=self._items, summary_index=0, **fields)

    def _call(self, number: int, call: ToolCall) -> Iterator[bytes]:
        item = call_item(self._run, number, call)
        at = {"item_id": item["id"], "output_index": self._items}
        yield self._added({**item, "status": "in_progress", "arguments": ""})
        yield self._event("response.function_call_arguments.delta", **at, delta=call.arguments)
        yield self._event(
            "response.function_call_arguments.done", **at, name=call.name, arguments=call.arguments
        )
        yield self._done(item)

    # --- events ------------------------------------------------------------------------------------------

    def _added(self, item: dict[str, Any]) -> bytes:
        return self._event("response.output_item.added", output_index=self._items, item=item)

    def _done(self, item: dict[str, Any], *, is_void: bool = False) -> bytes:
        if not is_void:
            self.output.append(item)
        self._items += 1
        return self._event("response.output_item.done", output_index=self._items - 1, item=item)

    def _part_event(self, number: int, kind: str, **fields: object) -> bytes:
        item_id = message_id(self._run, self.renewals)
        return self._event(kind, item_id=item_id, output_index=self._items, content_index=number, **fields)

    def _event(self, kind: str, **fields: object) -> bytes:
        number, self._numbers = self._numbers, self._numbers + 1
        if number <= self._after:
            return b""
        return named_event(kind, {"type": kind, "sequence_number": number, **fields})


def _seal(part: ReasoningPart) -> tuple[str, str | None, str | None]:
    """Return what tells one block of reasoning from the others."""
    return part.provider, part.signature, part.encrypted
