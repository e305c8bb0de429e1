"""A journal of runs in one SQLite file, which several processes of one machine may share.

One writer with group commit: while a transaction is being written, the changes that come meanwhile wait, and
all of them go into the next one. All work on the file is done in worker threads.
"""

from __future__ import annotations

import sqlite3
import time
import weakref
from typing import TYPE_CHECKING, Any, Concatenate, Final, Generic, Literal, ParamSpec, TypeVar, get_args

import trio
from trio.lowlevel import enable_ki_protection

from ultra._support.checks import check_seconds
from ultra._support.forking import ClosedForFork, Forkable
from ultra.errors import BadCall, ConfigError, JournalUnavailable
from ultra.stores import journal_sqlite_deliveries as deliveries
from ultra.stores import journal_sqlite_file as file
from ultra.stores.batches_sqlite import SqliteBatches
from ultra.stores.journal_changes import Changes
from ultra.stores.journal_contract import Claim, LeaseLost, Retention
from ultra.stores.journal_encoding import Damaged, encode_answer, encode_event, encode_spec, encode_tags
from ultra.stores.journal_opening import Synchronous
from ultra.stores.sqlite import check_path
from ultra.stores.sqlite_connection import Snapshot, connect, is_busy, refuse_newer_format, transaction

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence

    from ultra.messages.events import Event
    from ultra.messages.results import ModelResponse
    from ultra.stores.delivery_contract import Delivery
    from ultra.stores.journal_contract import (
        AnswerKey,
        Ending,
        Lease,
        Renewal,
        RunRecord,
        RunState,
    )

__all__ = ["SqliteJournal"]

P = ParamSpec("P")
T = TypeVar("T")

_POLL: Final = 0.1
"""Seconds between two looks for events that another process has written."""


class _Change(Generic[T]):
    """One change that waits for the transaction that it will be a part of."""

    __slots__ = ("error", "has_left", "leads", "over", "value", "work")

    def __init__(self, work: Callable[[sqlite3.Connection], T]) -> None:
        self.work = work
        self.over = trio.Event()
        self.leads = False  # whether its task writes the next transaction
        self.has_left = False  # whether its task waits no more
        self.value: T | None = None
        self.error: Exception | None = None


class SqliteJournal(Forkable):
    """Keeps runs in the SQLite file at `path`, created where absent, readable by its owner only.

    Args:
        path: the file. SQLite puts two more beside it, whose names end in ``-wal`` and ``-shm``.
        synchronous: ``"full"``: each event is on the disk before anybody reads it; a power cut then loses
            nothing, and each group of events costs a write to the disk.
        lease: seconds after which a run whose process has died is taken up by another one.
        retention: how long ended runs are kept.
        busy_timeout: seconds to wait while another process writes.
        read_only: whether the file is only read: it is then not made, and one of an earlier version stays as
            it is. It may be read-only, and so may its folder. What would write raises `JournalUnavailable`.
        now: the wall clock.

    Raises:
        BadCall: an argument is not allowed.
        ConfigError: the file is no journal of Ultra's, or one of a newer version. It is left as it is.
        JournalUnavailable: the file cannot be opened.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        synchronous: Synchronous = "normal",
        lease: float = 10.0,
        retention: Retention | None = None,
        busy_timeout: float = 5.0,
        read_only: bool = False,
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__()
        self._path = str(path)
        check_path(self._path)
        check_seconds("lease", lease, positive=True)
        check_seconds("busy_timeout", busy_timeout, positive=True)
        if synchronous not in get_args(Synchronous):
            raise BadCall(f"synchronous is {synchronous!r}; it must be 'normal' or 'full'")
        self._synchronous: Literal["NORMAL", "FULL"] = "FULL" if synchronous == "full" else "NORMAL"
        self._lease_seconds = lease
        self._retention = Retention() if retention is None else retention
        self._busy_timeout = busy_timeout
        self._read_only = read_only
        self._now = now
        self._changes = Changes()
        self._waiting: list[_Change[Any]] = []
        self._is_writing = False
        self._writer = _Connection(self._connect)
        self._reader = _Connection(self._connect)
        self.batches = SqliteBatches(self._write, self._read, now)
        try:
            (self._reader if read_only else self._writer).use(lambda _: None)
        except (sqlite3.Error, OSError) as error:
            raise self._unavailable(error) from error

    @property
    def lease_seconds(self) -> float:
        """Seconds for which a lease holds."""
        return self._lease_seconds

    async def add(self, run: RunRecord, holder: str | None = None) -> Claim | RunRecord:
        """Accept a run; see `RunJournal.add`."""
        encode_spec(run.spec)  # raises in this task, where no others wait
        encode_tags(run.tags)
        return await self._write(file.add_run, run, holder, self._now(), self._lease_seconds)

    async def get(self, run_id: str) -> RunRecord | None:
        """Return the run; None: there is none."""
        return await self._read(file.read_run, run_id)

    async def list_runs(
        self,
        *,
        owner: str | None = None,
        states: Sequence[RunState] = (),
        before: str | None = None,
        limit: int = 100,
    ) -> list[RunRecord]:
        """Return runs, the last accepted first; see `RunJournal.list_runs`."""
        return await self._read(file.list_runs, owner, states, before, limit)

    async def claim(self, holder: str, *, limit: int) -> list[Claim]:
        """Give `holder` the leases of runs that nobody holds; see `RunJournal.claim`."""
        return await self._write(file.claim_runs, holder, limit, self._now(), self._lease_seconds)

    async def renew(self, leases: Sequence[Lease]) -> Renewal:
        """Let leases hold for another while; see `RunJournal.renew`."""
        return await self._write(file.renew_leases, leases, self._now() + self._lease_seconds)

    async def release(self, leases: Sequence[Lease]) -> None:
        """Give leases up; see `RunJournal.release`."""
        await self._write(file.release_leases, leases)

    async def append(self, lease: Lease, events: Sequence[Event], ending: Ending | None = None) -> None:
        """Write the next events of a run; see `RunJournal.append`."""
        encoded = [(event.seq, encode_event(event)) for event in events]
        await self._write(file.append_events, lease, encoded, ending, self._now())
        if encoded:
            self._changes.written(lease.run_id, encoded[-1][0])

    async def keep_answer(self, lease: Lease, key: AnswerKey, answer: ModelResponse) -> None:
        """Keep a paid answer; see `RunJournal.keep_answer`."""
        await self._write(file.put_answer, lease, key, encode_answer(answer))

    async def record(
        self,
        run: RunRecord,
        events: Sequence[Event],
        ending: Ending,
        answers: Mapping[AnswerKey, ModelResponse],
    ) -> None:
        """Write a run that has ended, whole or not at all; see `EndedRuns.record`."""
        encode_spec(run.spec)  # raises in this task, where no others wait
        encode_tags(run.tags)
        encoded = [(event.seq, encode_event(event)) for event in events]
        paid = {key: encode_answer(answer) for key, answer in answers.items()}
        await self._write(file.record_run, run, encoded, paid, (ending, self._now()))

    async def answer_keys(self, run_id: str) -> frozenset[AnswerKey]:
        """Return the keys of the answers that were kept for the run."""
        return await self._read(file.read_answer_keys, run_id)

    async def answer(self, run_id: str, key: AnswerKey) -> ModelResponse | None:
        """Return the answer that was kept under `key`; None: there is none that can be read."""
        return await self._read(file.read_answer, run_id, key)

    async def read(self, run_id: str, after: int = -1, limit: int = 256) -> list[Event]:
        """Return the events behind `after`; see `RunJournal.read`."""
        return await self._read(file.read_events, run_id, after, limit)

    async def changed(self, run_id: str, after: int) -> None:
        """Wait until there may be more to read; see `RunJournal.changed`."""
        await self._changes.wait(run_id, after, _POLL)

    async def cancel(self, run_id: str, event: Event, ending: Ending) -> RunRecord | None:
        """Ask for the end of a run; see `RunJournal.cancel`."""
        record = await self._write(file.cancel_run, run_id, event, ending, self._now())
        self._changes.wake(run_id)
        return record

    async def delete(self, run_id: str) -> bool:
        """Remove a run that has ended; see `RunJournal.delete`."""
        deleted = await self._write(file.delete_run, run_id, self._now())
        self._changes.wake(run_id)
        return deleted

    async def prune(self) -> int:
        """Remove what the retention does not keep; return how many runs that were."""
        count, excess = 0, await self._read(file.excess_bytes, self._retention)
        while True:
            removed, excess = await self._write(file.prune_runs, self._retention, self._now(), excess)
            if not removed:
                return count
            count += len(removed)
            for run_id in removed:
                self._changes.wake(run_id)

    async def add_delivery(self, delivery: Delivery) -> None:
        """Keep a notice; see `DeliveryJournal.add_delivery`."""
        await self._write(deliveries.add_delivery, delivery, self._now())

    async def take_deliveries(self, limit: int, hold: float) -> list[Delivery]:
        """Return notices that are due; see `DeliveryJournal.take_deliveries`."""
        now = self._now()
        if not await self._read(deliveries.is_any_due, now):
            return []
        return await self._write(deliveries.take_deliveries, limit, now, hold)

    async def settle_delivery(self, delivery_id: str, again_in: float | None = None) -> None:
        """Drop a notice, or keep it for later; see `DeliveryJournal.settle_delivery`."""
        due = None if again_in is None else self._now() + again_in
        await self._write(deliveries.settle_delivery, delivery_id, due)

    async def aclose(self) -> None:
        """Close the file; a later use opens it again. A checkpoint; cancelled, it closes the file first."""
        with trio.CancelScope(shield=True):  # it takes little time
            for connection in (self._writer, self._reader):
                try:
                    await trio.to_thread.run_sync(connection.close, limiter=trio.CapacityLimiter(1))
                except RuntimeError:  # no thread can be started
                    connection.close()
        await trio.lowlevel.checkpoint_if_cancelled()

    def forked(self) -> None:
        """Forget the changes that wait: they are the parent's, which writes them."""
        self._waiting = []
        self._is_writing = False

    # --- reading -------------------------------------------------------------------------------------

    async def _read(
        self, work: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        try:
            return await trio.to_thread.run_sync(
                lambda: self._reader.use(lambda connection: work(connection, *args, **kwargs)),
                abandon_on_cancel=True,
                limiter=self._reader.limiter(),
            )
        except (sqlite3.Error, OSError) as error:
            raise self._unavailable(error) from error

    # --- writing -------------------------------------------------------------------------------------

    # Protected: after a KeyboardInterrupt in the middle, nobody would write for those that come later.
    @enable_ki_protection
    async def _write(
        self, work: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Let `work` be a part of the next transaction. Cancelled, it is one, but nobody waits for it."""
        if self._read_only:
            raise self._unavailable(PermissionError("it was opened for reading only"))
        change: _Change[T] = _Change(lambda connection: work(connection, *args, **kwargs))
        self._waiting.append(change)
        if self._is_writing:
            try:
                await change.over.wait()
            except BaseException:
                change.has_left = True
                if change.leads:
                    with trio.CancelScope(shield=True):
                        await self._write_waiting()
                raise
        else:
            self._is_writing = change.leads = True
        if change.leads:
            with trio.CancelScope(shield=True):  # others wait for it, too; it takes little time
                await self._write_waiting()
        await trio.lowlevel.checkpoint_if_cancelled()
        if change.error is not None:
            error, change.error = change.error, None
            raise error
        return change.value  # type: ignore[return-value] # it is done

    async def _write_waiting(self) -> None:
        """Write all changes that wait in one transaction; the next task writes those that came meanwhile."""
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                await trio.to_thread.run_sync(self._commit, batch, limiter=self._writer.limiter())
            except Exception as error:  # noqa: BLE001 - no thread could be started: each of the tasks gets it
                for change in batch:
                    change.error = error
            except BaseException:  # KeyboardInterrupt, before there was a thread
                self._waiting[:0] = [change for change in batch if not change.leads]
                self._is_writing = self._hand_on()
                raise
            for change in batch:
                change.over.set()
            if self._hand_on():
                return
        self._is_writing = False

    def _hand_on(self) -> bool:
        """Let the first task that still waits write the next transaction; return whether there is one."""
        heir = next((change for change in self._waiting if not change.has_left), None)
        if heir is None:
            return False
        heir.leads = True
        heir.over.set()
        return True

    def _commit(self, batch: list[_Change[Any]]) -> None:
        """Make all changes in one transaction; a change that is refused changes nothing. In a thread."""
        try:
            self._writer.use(lambda connection: _make_all(connection, batch))
        except Exception as error:  # noqa: BLE001 - each of the tasks that wait gets it
            if len(batch) > 1 and not is_busy(error):
                for change in batch:  # it may be the fault of one of them, such as a row that is damaged
                    self._commit([change])
                return
            for change in batch:
                change.error = error
                if isinstance(error, (sqlite3.Error, OSError)):
                    change.error = self._unavailable(error)

    def _unavailable(self, error: sqlite3.Error | OSError) -> JournalUnavailable:
        if is_busy(error):
            said = f"another program has kept the file locked for {self._busy_timeout:g} s; try again later"
            busy = TimeoutError(said)
            busy.__cause__ = error
            return JournalUnavailable(self._path, busy)
        return JournalUnavailable(self._path, error)

    def _connect(self) -> sqlite3.Connection:
        return connect(
            self._path,
            file.JOURNAL_FILE,
            busy_timeout=self._busy_timeout,
            writing=not self._read_only,
            synchronous=self._synchronous,
        )


def _make_all(connection: sqlite3.Connection, batch: list[_Change[Any]]) -> None:
    with transaction(connection):
        refuse_newer_format(connection, file.JOURNAL_FILE)
        for change in batch:
            change.error = None
            try:
                change.value = change.work(connection)
            except (LeaseLost, BadCall, Damaged) as error:  # raised where there is nothing more to change
                change.error = error


class _Connection(ClosedForFork):
    """A connection to the file, which is opened again after a failure, and where a process has forked."""

    def __init__(self, open_it: Callable[[], sqlite3.Connection]) -> None:
        super().__init__()
        self._open = open_it
        self._connection: sqlite3.Connection | None = None
        self._finalizer: weakref.finalize[..., _Connection] | None = None
        self._limiter: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar("journal")

    def use(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do `work` in this thread, and return its result; raise what it raises."""
        with self._lock:
            if self._connection is None:
                self._connection = self._open()
                self._finalizer = weakref.finalize(self, self._connection.close)
            try:
                return work(self._connection)
            except (sqlite3.Error, OSError, ConfigError) as error:
                if not is_busy(error):
                    self._close()
                raise
            finally:
                if isinstance(self._connection, Snapshot):
                    self._close()

    def close(self) -> None:
        """Close the connection; the next use opens it again."""
        with self._lock:
            self._close()

    def limiter(self) -> trio.CapacityLimiter:
        """Return what lets one thread at a time use the connection, of this trio run."""
        try:
            return self._limiter.get()
        except LookupError:
            self._limiter.set(trio.CapacityLimiter(1))
            return self._limiter.get()

    def _close(self) -> None:
        if self._finalizer is not None:
            self._finalizer()  # closes the connection, once
        self._connection = self._finalizer = None
