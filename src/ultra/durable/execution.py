"""One run from the journal, carried out: its events are written to the journal as they come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import trio

from ultra._support.log import get_logger
from ultra.durable.memo import PaidAnswers
from ultra.durable.persistence import persist
from ultra.durable.told import Told
from ultra.errors import JournalDamaged, RunCancelled, text_of
from ultra.messages.events import RunCompleted, RunFailed
from ultra.stores.journal_contract import Ending, LeaseLost

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from ultra.messages.events import Event
    from ultra.messages.results import ModelResponse
    from ultra.stores.journal_contract import AnswerKey, Claim, RunJournal, RunRecord

__all__ = ["EventReader", "Execution", "RunOpener", "cancelled_event", "ending_of", "read_all"]

T = TypeVar("T")

log = get_logger("ultra.durable")

_BROKEN_OFF: Final = frozenset({"ActorStopped", "OrchestratorClosed"})
"""How a run fails when the actors stop below it, which is no end of a submitted run."""


class EventReader(Protocol):
    """The events of a run that goes on."""

    async def next(self) -> Event | None:
        """Wait for the next event, and return it; None after the last."""
        ...

    def ready(self) -> list[Event]:
        """Return the events that need not be waited for."""
        ...


class RunOpener(Protocol):
    """Begins a run, or begins it again."""

    def __call__(
        self, run: RunRecord, paid: PaidAnswers, told: Told
    ) -> AbstractAsyncContextManager[EventReader]:
        """Return the block of the run; `told` is what its earlier executions have told.

        Raises, as entering the block does, `ModelGone`, `StrategyGone` or `BadCall` where it cannot begin.
        """
        ...


def ending_of(event: Event) -> Ending | None:
    """Return how a run ends with this event; None: it goes on."""
    if isinstance(event, RunCompleted):
        return Ending(state="completed")
    if isinstance(event, RunFailed):
        cancelled = event.error == RunCancelled.__name__
        return Ending(state="cancelled" if cancelled else "failed", code=event.error, message=event.message)
    return None


def cancelled_event(run_id: str, seq: int = 0) -> RunFailed:
    """Return the last event of a run that was cancelled."""
    error = RunCancelled(run_id)
    return RunFailed(run_id=run_id, seq=seq, error=type(error).__name__, message=text_of(error))


async def read_all(journal: RunJournal, run_id: str) -> list[Event]:
    """Return all events of a run, which may take much memory. Raises as `each_page` does."""
    return [event async for page in each_page(journal, run_id) for event in page]


async def each_page(journal: RunJournal, run_id: str) -> AsyncIterator[list[Event]]:
    """Yield the events of a run in pieces of a bounded size.

    Raises:
        JournalUnavailable: as `RunJournal.read`; or `JournalDamaged`.
    """
    after = -1
    while page := await journal.read(run_id, after):
        yield page
        after = page[-1].seq


class Execution:
    """Carries out a run under one lease, and writes down how it ends, once."""

    def __init__(self, journal: RunJournal, claim: Claim) -> None:
        self.lease = claim.lease
        self._run = claim.run
        self._journal = journal
        self._scope = trio.CancelScope()
        self._is_cancelled = claim.run.cancelling
        self._is_broken_off = False

    def cancel(self) -> None:
        """Cancel the run, which then ends."""
        self._is_cancelled = True
        self._scope.cancel()

    def lose(self) -> None:
        """Break the run off, since its lease is lost: it goes on elsewhere."""
        self._is_broken_off = True
        self._scope.cancel()

    def close(self) -> None:
        """Take what ends the run from now on for its being broken off, if that may be so."""
        self._is_broken_off = True

    async def run(self, open_run: RunOpener) -> None:
        """Carry out the run. Cancelled, it is broken off, and can be taken up again."""
        try:
            with self._scope:
                if not self._is_cancelled:
                    await self._carry_out(open_run)
            if self._is_cancelled and not self._is_broken_off:
                await self._end(RunCancelled(self._run.run_id))
        except LeaseLost:
            log.warning("run lost", run_id=self._run.run_id, holder=self.lease.holder)

    async def _carry_out(self, open_run: RunOpener) -> None:
        run_id = self._run.run_id
        told = Told()
        paid: frozenset[AnswerKey] = frozenset()
        try:
            if self._run.executions > 1:
                while page := await self._persist(lambda: self._journal.read(run_id, told.events - 1)):
                    for event in page:
                        told.take(event)
                paid = await self._persist(lambda: self._journal.answer_keys(run_id))
                log.info("run taken up", run_id=run_id, events=told.events, answers=len(paid))
            async with open_run(self._run, PaidAnswers(paid, self._find, self._keep), told) as events:
                await self._write_all(events)
        except LeaseLost:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it is how the run ends
            if not self._is_broken_off:
                await self._end(error)

    async def _write_all(self, events: EventReader) -> None:
        while (event := await events.next()) is not None:
            batch = [event, *events.ready()]
            ending = ending_of(batch[-1])
            if ending is not None and self._is_broken_off and ending.code in _BROKEN_OFF:
                return
            await self._append(batch, ending)

    async def _append(self, events: Sequence[Event], ending: Ending | None) -> None:
        await self._persist(lambda: self._journal.append(self.lease, events, ending))

    async def _find(self, key: AnswerKey) -> ModelResponse | None:
        return await self._persist(lambda: self._journal.answer(self._run.run_id, key))

    async def _keep(self, key: AnswerKey, answer: ModelResponse) -> None:
        await self._persist(lambda: self._journal.keep_answer(self.lease, key, answer))

    async def _end(self, error: Exception) -> None:
        """Write the last event of a run that cannot tell its end itself."""
        run_id = self._run.run_id
        found = await self._persist(lambda: self._journal.get(run_id))
        if found is None or found.has_ended:
            return
        try:
            before = await self._persist(lambda: self._journal.read(run_id, found.events - 2))
        except JournalDamaged:
            before = []
        event = RunFailed(
            run_id=run_id,
            seq=found.events,
            time=before[-1].time if before else 0.0,
            error=type(error).__name__,
            message=text_of(error),
        )
        log.warning("submitted run ended", run_id=run_id, error=event.error, message=event.message)
        await self._append([event], ending_of(event))

    async def _persist(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do this, again and again while the journal does not work."""
        return await persist(work, self._run.run_id)
