"""One run that several requests may follow: its text so far, its progress, and how it ended.

The text is kept once, whoever reads it and however slowly: a request that streams keeps only its place in it.
So is the reasoning ahead of it.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from ultra._support.async_library import library
from ultra._support.log import get_logger
from ultra.messages.events import ModelResponded, StageStarted
from ultra.messages.reasoning import joined_reasoning
from ultra.service.answer_text import ANSWER_STEPS, MOST_AT_ONCE, AnswerText, missing
from ultra.service.ledger import Ledger
from ultra.service.problems import Problem, problem_of
from ultra.service.refusals import Refused, refused_by_all

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ultra._support.async_library import AsyncEvent
    from ultra._support.reminders import Reminder, Reminders
    from ultra.messages.chat import ReasoningPart
    from ultra.messages.events import Event
    from ultra.messages.results import OrchestrationResult
    from ultra.service.metering import MeteredStream

__all__ = ["Place", "SharedRun"]

_log = get_logger("ultra.service")


class Place:
    """How far one reader has come in the text of a run, and in its reasoning."""

    def __init__(self) -> None:
        self.version = 0
        self.pieces = 0
        self.reasoning_version = 0
        self.thoughts = 0
        self._woken: AsyncEvent | None = None
        self._reminder: Reminder | None = None

    def wake_at(self, due: float, reminders: Reminders, woken: AsyncEvent) -> None:
        """Set `woken` at this time, or somewhat before it."""
        self._woken = woken
        if self._reminder is None or due < self._reminder.due:  # else it rings before, and is made again
            self.leave()
            self._reminder = reminders.add(due, self._wake)

    def leave(self) -> None:
        """Be woken no more."""
        if self._reminder is not None:
            self._reminder.cancel()
            self._reminder = None

    def _wake(self) -> None:
        self._reminder = None
        if self._woken is not None:
            self._woken.set()

    @property
    def has_read(self) -> bool:
        """Whether it has read any text."""
        return self.pieces > 0


class SharedRun:
    """A run of the service.

    `stream` is what is run; `reminders` wake its readers. `is_single`: it asks one model, and no ensemble.
    `holds_text`: its text is read once it is whole, and not as it is written. `tells_reasoning`: what the
    writer thinks is read, too.

    Attributes:
        run_id: the name of the run.
        created: when it began, in seconds of Unix time.
        result: what it came to, once it has ended well.
        problem: how it failed, once it has failed.
        refused: how its models refused, if that is why it failed.
        ledger: its answers and failures so far.
        asked, answered: how many models were asked, and have answered, before the answer is written.
        readers: how many requests follow it.
        is_kept: whether it is kept in the journal.
    """

    def __init__(
        self,
        stream: MeteredStream,
        reminders: Reminders,
        *,
        is_single: bool = False,
        holds_text: bool = False,
        tells_reasoning: bool = False,
    ) -> None:
        self.run_id = stream.run_id
        self.created = stream.created
        self.is_kept = stream.is_kept
        self.result: OrchestrationResult | None = None
        self.problem: Problem | None = None
        self.refused: Refused | None = None
        self.ledger = Ledger()
        self.asked = 0
        self.answered = 0
        self.readers = 0
        self._stream = stream
        self._reminders = reminders
        self._is_single = is_single
        self._text = AnswerText(holds=holds_text, is_single=is_single, with_reasoning=tells_reasoning)
        self._waiting: dict[AsyncEvent, None] = {}  # one for each reader, so that each can be woken alone
        self._library = library()
        self._scope = self._library.CancelScope()

    # --- the run itself --------------------------------------------------------------------------------

    async def carry_out(self) -> None:
        """Run it to its end, or until `cancel`; nothing is raised."""
        try:
            # Neither entering nor leaving the block must be cut short, since what was reserved is settled; so
            # only what is in it can be cancelled. What waits for a journal or for limits meanwhile is bounded
            # in time; see `uninterrupted`.
            with self._library.CancelScope(shield=True):
                async with self._stream as stream:
                    with self._scope:
                        await stream.for_each(self._take)
                        self.result = await stream.result()
        except Exception as error:  # noqa: BLE001 - it becomes the answer of each request
            self._fail(error)
        finally:
            if self.result is None and self.problem is None:
                text = "the run was cancelled"
                self.problem = Problem(503, "server_error", "cancelled", text, paid=self.paid)
            del self._stream
            self._tell()

    def cancel(self) -> None:
        """Cancel the run, unless it has ended."""
        self._scope.cancel()

    @property
    def is_cancelled(self) -> bool:
        """Whether it was cancelled, by `cancel`."""
        return self._scope.cancel_called

    @property
    def has_ended(self) -> bool:
        """Whether it is over."""
        return self.result is not None or self.problem is not None

    @property
    def paid(self) -> bool:
        """Whether a call of it may have cost money."""
        return self.ledger.paid

    def _fail(self, error: Exception) -> None:
        self.refused = refused_by_all(error, self.ledger, self._text.asked)
        self.problem = problem_of(error, self.ledger.failures, paid=self.paid, single=self._is_single)
        if self.problem.status == 500:  # noqa: PLR2004 - of HTTP
            _log.error("run failed", run_id=self.run_id, exc_info=error)

    def _take(self, event: Event) -> None:
        self.ledger.take(event)
        match event:
            case StageStarted() if event.stage not in ANSWER_STEPS:
                self.asked, self.answered = len(event.models), 0
            case ModelResponded() if event.stage not in ANSWER_STEPS:
                self.answered += 1
            case _:
                pass
        if self._text.take(event):
            self._tell()

    # --- those who follow it -----------------------------------------------------------------------------

    def now(self) -> float:
        """Return the time of the event loop."""
        return self._library.current_time()

    def read(self, place: Place) -> str:
        """Return the next text of the answer that came since the reader was here; it moves on.

        Text of a later version is not returned to a reader who has read an earlier one: see `rest`.
        """
        texts = self._text.versions
        newest = len(texts) - 1
        if place.version != newest and not place.has_read:
            place.version = newest
        pieces = texts[place.version]
        if place.version != newest or place.pieces == len(pieces):
            return ""
        begin, length = place.pieces, 0
        while place.pieces < len(pieces) and length < MOST_AT_ONCE:
            length += len(pieces[place.pieces])
            place.pieces += 1
        return "".join(pieces[begin : place.pieces])

    def has_reasoning_for(self, place: Place) -> bool:
        """Return whether a reader has not all of the reasoning, or some that is void."""
        thoughts = self._text.thoughts
        return place.thoughts != len(thoughts[-1]) or place.reasoning_version != len(thoughts) - 1

    def read_reasoning(self, place: Place) -> tuple[list[ReasoningPart], bool]:
        """Return the reasoning that came since the reader was here; it moves on.

        The second value says whether what the reader has of it is void.
        """
        newest = len(self._text.thoughts) - 1
        pieces = self._text.thoughts[newest]
        void = place.reasoning_version != newest and place.thoughts > 0
        if place.reasoning_version != newest:
            place.reasoning_version, place.thoughts = newest, 0
        begin, length = place.thoughts, 0
        while place.thoughts < len(pieces) and length < MOST_AT_ONCE:
            length += len(pieces[place.thoughts].text)
            place.thoughts += 1
        return joined_reasoning(pieces[begin : place.thoughts]), void

    def rest(self, place: Place, whole: str) -> Iterator[str] | None:
        """Return what is missing to the `whole` answer; None: the reader has read what is no part of it."""
        return missing("".join(self._text.versions[place.version][: place.pieces]), whole)

    async def change(self, until: float = inf, place: Place | None = None) -> None:
        """Wait until something is new; or, for the reader at `place`, until this time has come.

        `until` is a time of the event loop. This may return before.
        """
        if self.has_ended:
            return
        changed = self._library.Event()
        if place is not None and until < inf:
            place.wake_at(until, self._reminders, changed)
        self._waiting[changed] = None
        try:
            await changed.wait()
        finally:
            self._waiting.pop(changed, None)

    async def beginning(self, within: float) -> None:
        """Wait until the answer begins, the run has ended, or so many seconds are over."""
        with self._library.CancelScope(deadline=self._library.current_time() + within):
            while not (self.has_ended or self._text.versions[-1] or self._text.thoughts[-1]):
                await self.change()

    async def end(self) -> None:
        """Wait until it has ended."""
        while not self.has_ended:
            await self.change()

    def _tell(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for changed in waiting:
            changed.set()
