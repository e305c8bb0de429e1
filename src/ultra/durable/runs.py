"""The submitted runs of one orchestrator: accepted into the journal, executed, taken up again, ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVarTuple

import trio

from ultra._support.forking import Forkable
from ultra._support.log import get_logger
from ultra._support.randomness import new_id
from ultra.durable.execution import Execution, cancelled_event, ending_of
from ultra.errors import (
    BadCall,
    IdempotencyConflict,
    JournalDamaged,
    JournalUnavailable,
    OrchestratorClosed,
    UnknownRun,
    text_of,
)
from ultra.stores.batch_contract import KeepsBatches
from ultra.stores.delivery_contract import Delivery, DeliveryJournal
from ultra.stores.journal_contract import Claim, RunRecord
from ultra.stores.journal_fence import FencedJournal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ultra.durable.execution import RunOpener
    from ultra.messages.runs import RunSpec
    from ultra.stores.batch_contract import BatchStore
    from ultra.stores.journal_contract import RunJournal

__all__ = ["DurableRuns"]

Ts = TypeVarTuple("Ts")

log = get_logger("ultra.durable")

MOST_RUNNING: Final = 256
"""Submitted runs that one process executes at once; others wait in the journal."""

_LONGEST_TICK: Final = 1.0
"""Seconds between two looks for runs that nobody executes; with short leases, a third of a lease."""

_PRUNE_INTERVAL: Final = 60.0
"""Seconds between two looks for runs that need not be kept."""


class DurableRuns(Forkable):
    """Executes the runs of a journal, as long as the orchestrator is entered; all of it on trio.

    Args:
        journal: has the runs.
        open_run: begins one.
        owned: whether the journal is closed with this.
    """

    def __init__(self, journal: RunJournal, open_run: RunOpener, *, owned: bool) -> None:
        super().__init__()
        self.journal = journal
        self._open_run = open_run
        self.owned = owned
        self._holder = new_id()
        self._executions: dict[str, Execution] = {}
        self._nursery: trio.Nursery | None = None
        self._closing = False
        self._wake = trio.Event()  # a run has ended, so that there is room for another one
        self._idle = trio.Event()
        self._over = trio.Event()

    def forked(self) -> None:
        """Execute nothing: the leases are the parent's, and so is its name."""
        self._holder = new_id()
        self._executions = {}
        self._nursery = None

    @property
    def running(self) -> int:
        """How many runs this process executes now."""
        return len(self._executions)

    # --- the lifespan ----------------------------------------------------------------------------------

    async def start(self, start_soon: Callable[[Callable[[], Awaitable[object]]], None]) -> None:
        """Take up the runs that nobody executes, in a task of `start_soon`, and go on so until `end`."""
        started = trio.Event()
        self._over = trio.Event()
        self._closing = False
        start_soon(lambda: self._work(started))
        await started.wait()

    def close(self) -> None:
        """Begin no more runs."""
        self._closing = True

    async def end(self, grace: float) -> None:
        """Wait at most `grace` seconds for the runs to end, and break off those that have not.

        They can then be taken up at once, by any process. Cancelled, it breaks them off at once.
        """
        self.close()
        if self._nursery is None:
            return
        try:
            with trio.move_on_after(grace):
                while self._executions:
                    self._idle = trio.Event()
                    await self._idle.wait()
        finally:
            for execution in self._executions.values():
                execution.close()
            if self._nursery is not None:
                self._nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await self._over.wait()

    async def aclose(self) -> None:
        """Close the journal, if it was opened for this."""
        if self.owned:
            await self.journal.aclose()

    async def _work(self, started: trio.Event) -> None:
        try:
            async with trio.open_nursery(strict_exception_groups=True) as nursery:
                self._nursery = nursery
                started.set()
                nursery.start_soon(self._prune)
                await self._claim()
        finally:
            self._nursery = None
            await self._release()
            self._over.set()

    async def _release(self) -> None:
        """Give up the leases of runs that were broken off."""
        left = [execution.lease for execution in self._executions.values()]
        self._executions.clear()
        if not left:
            return
        with trio.CancelScope(shield=True, deadline=trio.current_time() + self._tick):
            try:
                await self.journal.release(left)
            except JournalUnavailable as error:  # they run out
                log.warning("journal unavailable", error=text_of(error))

    # --- executing -------------------------------------------------------------------------------------

    @property
    def _tick(self) -> float:
        return min(_LONGEST_TICK, self.journal.lease_seconds / 3)

    async def _claim(self) -> None:
        while True:
            self._wake = trio.Event()
            # Ahead of the claim, which would take what this process executes itself, if its lease was over.
            await self._renew()
            room = MOST_RUNNING - len(self._executions)
            if room > 0 and not self._closing:
                try:
                    for claim in await self.journal.claim(self._holder, limit=room):
                        self._begin(claim)
                except JournalUnavailable as error:
                    log.warning("journal unavailable", error=text_of(error))
            with trio.move_on_after(self._tick):
                await self._wake.wait()

    def _begin(self, claim: Claim) -> None:
        if self._nursery is None:
            return  # the lease runs out
        execution = self._executions[claim.run.run_id] = Execution(self.journal, claim)
        self._nursery.start_soon(self._execute, claim.run.run_id, execution)

    async def _execute(self, run_id: str, execution: Execution) -> None:
        try:
            await execution.run(self._open_run)
        except Exception:
            log.exception("execution failed", run_id=run_id)
        # Not where it is cancelled: then `_release` gives up its lease.
        if self._executions.get(run_id) is execution:
            del self._executions[run_id]
        if len(self._executions) == MOST_RUNNING - 1:
            self._wake.set()
        if not self._executions:
            self._idle.set()

    async def _renew(self) -> None:
        now = dict(self._executions)
        if not now:
            return
        try:
            renewal = await self.journal.renew([execution.lease for execution in now.values()])
        except JournalUnavailable as error:
            log.warning("journal unavailable", error=text_of(error))
            return
        for run_id, execution in now.items():
            if self._executions.get(run_id) is not execution:
                continue  # it has ended meanwhile
            if run_id not in renewal.held:
                execution.lose()
            elif run_id in renewal.cancelling:
                execution.cancel()

    async def _prune(self) -> None:
        while True:
            try:
                await self.journal.prune()
            except JournalUnavailable as error:
                log.warning("journal unavailable", error=text_of(error))
            await trio.sleep(_PRUNE_INTERVAL)

    # --- for the orchestrator --------------------------------------------------------------------------

    async def submit(
        self,
        run_id: str,
        spec: RunSpec,
        *,
        idempotency_key: str | None,
        owner: str | None,
        tags: dict[str, Any],
        notify: str | None = None,
    ) -> str:
        """Accept a run under this new id, and return it; for a known idempotency key, that of its run."""
        if self._nursery is None or self._closing:
            raise OrchestratorClosed("the orchestrator must be entered to submit runs: use 'async with'")
        run = RunRecord(run_id=run_id, spec=spec, idempotency_key=idempotency_key, owner=owner, tags=tags)
        notice = None if notify is None else await self._add_notice(run_id, notify)
        has_room = len(self._executions) < MOST_RUNNING
        found = await self.journal.add(run, self._holder if has_room else None)
        if isinstance(found, Claim):
            self._begin(found)
            return run.run_id
        if found.run_id != run.run_id and notice is not None:
            await self.deliveries.settle_delivery(notice.id)
        if found.run_id != run.run_id and idempotency_key is not None and not _is_same(found.spec, spec):
            raise IdempotencyConflict(idempotency_key, found.run_id)
        return found.run_id

    async def _add_notice(self, run_id: str, url: str) -> Delivery:
        """Keep the notice of a run ahead of the run itself, so that no crash comes between them."""
        notice = Delivery(id=f"evt_{new_id()}", run_id=run_id, url=url)
        await self.deliveries.add_delivery(notice)
        return notice

    @property
    def deliveries(self) -> DeliveryJournal:
        """The journal, as far as it keeps notices."""
        found = self._deliveries
        if found is None:
            raise BadCall(
                "the journal keeps no notices of the ends of runs; 'memory' and 'sqlite:///path' do"
            )
        return found

    @property
    def batches(self) -> BatchStore | None:
        """The batches of the journal; None: it keeps none."""
        return self.journal.batches if isinstance(self.journal, KeepsBatches) else None

    @property
    def has_deliveries(self) -> bool:
        """Whether the journal keeps notices."""
        return self._deliveries is not None

    @property
    def _deliveries(self) -> DeliveryJournal | None:
        journal = self.journal
        if isinstance(journal, FencedJournal):
            return journal.deliveries
        return journal if isinstance(journal, DeliveryJournal) else None

    async def cancel(self, run_id: str) -> RunRecord:
        """Ask for the end of a run, and return it as it is then; raise `UnknownRun` if there is none."""
        event = cancelled_event(run_id)
        ending = ending_of(event)
        if ending is None:
            raise BadCall("the last event of a run must end it")
        found = await self.journal.cancel(run_id, event, ending)
        if found is None:
            raise UnknownRun(run_id)
        execution = self._executions.get(run_id)
        if execution is not None and not found.has_ended:
            execution.cancel()
        return found

    async def get(self, run_id: str) -> RunRecord:
        """Return a run; raise `UnknownRun` if there is none."""
        found = await self.journal.get(run_id)
        if found is None:
            raise UnknownRun(run_id)
        return found

    async def delete(self, run_id: str) -> None:
        """Remove a run that has ended."""
        if await self.journal.delete(run_id):
            return
        try:
            found = await self.get(run_id)
        except JournalDamaged:
            text = f"run {run_id!r} is damaged, and still held; cancel it first, and delete it in a moment"
            raise BadCall(text) from None
        raise BadCall(f"run {run_id!r} is {found.state}; cancel it first, and delete it when it has ended")


def _is_same(one: RunSpec, other: RunSpec) -> bool:
    """Return whether two runs are to do the same; fences may differ."""
    names = [name for name in one.__struct_fields__ if name not in {"secret", "weights"}]
    return all(getattr(one, name) == getattr(other, name) for name in names)
