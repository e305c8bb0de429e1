"""A run that was not submitted, collected while it goes on, and written to a journal once it has ended."""

from __future__ import annotations

import time
from io import StringIO
from typing import TYPE_CHECKING

from msgspec.structs import replace

from ultra.durable.execution import cancelled_event, ending_of
from ultra.durable.memo import PaidAnswers
from ultra.errors import BadCall
from ultra.messages.events import (
    Chunk,
    ModelFailed,
    ModelResponded,
    ModelRetrying,
    ReasoningChunk,
    call_of,
)
from ultra.messages.reasoning_chunks import WaitingReasoning
from ultra.stores.journal_contract import RunRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from ultra.messages.events import CallKey, Event
    from ultra.messages.results import ModelResponse
    from ultra.messages.runs import RunSpec
    from ultra.stores.journal_contract import AnswerKey, EndedRuns

__all__ = ["RunRecording"]


class RunRecording:
    """What one run does, as a journal keeps it: the pieces of each answer are joined into one.

    So what it takes grows with the text, and not with the number of pieces. ::

        recording = RunRecording(run_id, spec, tags={"by": "ask"})
        async for event in run:  # its memo is `recording.memo`
            recording.take(event)
        await recording.write(journal)

    Args:
        run_id: names the run.
        spec: what it is to do.
        tags: what is kept with it.
        now: the wall clock.
    """

    def __init__(
        self,
        run_id: str,
        spec: RunSpec,
        *,
        tags: Mapping[str, Any] | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.record = RunRecord(run_id=run_id, spec=spec, tags=dict(tags or {}), created=now())
        self._answers: dict[AnswerKey, ModelResponse] = {}
        self.memo = PaidAnswers((), self._find_answer, self._keep_answer)
        self._events: list[Event | _Text | WaitingReasoning] = []
        self._open: dict[CallKey, _Text] = {}
        self._thoughts: dict[CallKey, WaitingReasoning] = {}

    def take(self, event: Event) -> None:
        """Take the next event."""
        if isinstance(event, Chunk):
            name = call_of(event)
            text = self._open.get(name)
            if text is not None and not event.restart:
                text.more.write(event.text)
                return
            self._open[name] = joined = _Text(event)
            self._events.append(joined)
            return
        if isinstance(event, ReasoningChunk):
            thoughts = self._thoughts.get(call_of(event))
            if thoughts is None or not thoughts.joins(event):
                self._thoughts[call_of(event)] = thoughts = WaitingReasoning(event)
                self._events.append(thoughts)
            return
        if isinstance(event, (ModelResponded, ModelFailed, ModelRetrying)):
            self._open.pop(call_of(event), None)
            self._thoughts.pop(call_of(event), None)
        self._events.append(event)

    def events(self) -> list[Event]:
        """Return the events so far. A run of which the last one has not come is one that was cancelled."""
        found = [each.event() if isinstance(each, _Waiting) else each for each in self._events]
        if not found or ending_of(found[-1]) is None:
            last = cancelled_event(self.record.run_id)
            found.append(replace(last, time=found[-1].time if found else 0.0))
        return [replace(event, seq=seq) for seq, event in enumerate(found)]

    async def write(
        self,
        journal: EndedRuns,
        cleaned: Callable[[Any], Any] = lambda value: value,
    ) -> None:
        """Write the run to a journal. `cleaned` returns a value as it may be kept: without secrets.

        Raises:
            JournalUnavailable: it was not written.
            BadCall: something in the run is no value.
        """
        events = [cleaned(event) for event in self.events()]
        ending = ending_of(events[-1])
        if ending is None:
            raise BadCall("the last event of a run must end it")
        answers: dict[AnswerKey, ModelResponse] = {
            key: cleaned(answer) for key, answer in self._answers.items()
        }
        await journal.record(cleaned(self.record), events, ending, answers)

    async def _find_answer(self, key: AnswerKey) -> ModelResponse | None:
        return self._answers.get(key)

    async def _keep_answer(self, key: AnswerKey, response: ModelResponse) -> None:
        self._answers[key] = response  # it is written with all the rest


class _Text:
    """The pieces of an answer, joined."""

    __slots__ = ("first", "more")

    def __init__(self, first: Chunk) -> None:
        self.first = first
        self.more = StringIO()  # a list of pieces would take many times the memory

    def event(self) -> Chunk:
        return replace(self.first, text=self.first.text + self.more.getvalue())


_Waiting = (_Text, WaitingReasoning)
