"""A journal in memory: for tests, and for runs that need not outlive their process."""

from __future__ import annotations

import time
from math import inf
from typing import TYPE_CHECKING

from msgspec.structs import replace
from trio.lowlevel import checkpoint

from ultra._support.checks import check_seconds
from ultra.stores.batches_memory import MemoryBatches
from ultra.stores.delivery_contract import DELIVERY_ORPHANED
from ultra.stores.journal_changes import Changes
from ultra.stores.journal_contract import PAGE_BYTES, Claim, Lease, LeaseLost, Renewal, Retention, latest_end
from ultra.stores.journal_encoding import (
    decode_answer,
    decode_event,
    decode_spec,
    encode_answer,
    encode_event,
    encode_spec,
    encode_tags,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ultra.messages.events import Event
    from ultra.messages.results import ModelResponse
    from ultra.stores.delivery_contract import Delivery
    from ultra.stores.journal_contract import AnswerKey, Ending, RunRecord, RunState

__all__ = ["MemoryJournal"]


class _Kept:
    """One run: its record, what belongs to it, and who has its lease until when."""

    def __init__(self, record: RunRecord) -> None:
        self.record = record
        self.events: list[bytes] = []
        self.answers: dict[AnswerKey, bytes] = {}
        self.holder: str | None = None
        self.number = 0
        self.until = -inf

    def is_held(self, now: float) -> bool:
        return self.holder is not None and self.until > now

    def check(self, lease: Lease) -> None:
        if self.record.has_ended or (self.holder, self.number) != (lease.holder, lease.number):
            raise LeaseLost


class _Waiting:
    """A notice, and from when on it is due."""

    def __init__(self, delivery: Delivery, now: float) -> None:
        self.delivery = delivery
        self.added = self.due = now


class MemoryJournal:
    """Keeps runs in memory, encoded as in a file.

    Args:
        lease: seconds for which a lease holds.
        retention: how long ended runs are kept.
        now: the wall clock.

    Raises:
        BadCall: an argument is not allowed.
    """

    def __init__(
        self,
        *,
        lease: float = 10.0,
        retention: Retention | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        check_seconds("lease", lease, positive=True)
        self._lease_seconds = lease
        self._retention = Retention() if retention is None else retention
        self._now = now
        self._runs: dict[str, _Kept] = {}  # in the order of their acceptance
        self._by_key: dict[tuple[str | None, str], str] = {}
        self._changes = Changes()
        self._deliveries: dict[str, _Waiting] = {}
        self.batches = MemoryBatches(now)

    @property
    def lease_seconds(self) -> float:
        """Seconds for which a lease holds."""
        return self._lease_seconds

    async def add(self, run: RunRecord, holder: str | None = None) -> Claim | RunRecord:
        """Accept a run; see `RunJournal.add`."""
        await checkpoint()
        if run.idempotency_key is not None:
            known = self._by_key.get((run.owner, run.idempotency_key))
            if known is not None:
                return self._runs[known].record
        kept = self._add(run, self._now())
        return kept.record if holder is None else self._given(kept, holder)

    async def get(self, run_id: str) -> RunRecord | None:
        """Return the run; None: there is none."""
        await checkpoint()
        kept = self._runs.get(run_id)
        return None if kept is None else kept.record

    async def list_runs(
        self,
        *,
        owner: str | None = None,
        states: Sequence[RunState] = (),
        before: str | None = None,
        limit: int = 100,
    ) -> list[RunRecord]:
        """Return runs, the last accepted first; see `RunJournal.list_runs`."""
        await checkpoint()
        names = list(self._runs)
        if before is not None:
            names = names[: names.index(before)] if before in self._runs else []
        found = (self._runs[name].record for name in reversed(names))
        fitting = [
            record
            for record in found
            if (owner is None or record.owner == owner) and (not states or record.state in states)
        ]
        return fitting[:limit]

    async def claim(self, holder: str, *, limit: int) -> list[Claim]:
        """Give `holder` the leases of runs that nobody holds; see `RunJournal.claim`."""
        await checkpoint()
        now = self._now()
        latest = latest_end(now, self._lease_seconds)
        free = (
            kept
            for kept in self._runs.values()
            if not (kept.record.has_ended or (kept.is_held(now) and kept.until <= latest))
        )
        return [self._given(kept, holder) for kept, _ in zip(list(free), range(limit), strict=False)]

    async def renew(self, leases: Sequence[Lease]) -> Renewal:
        """Let leases hold for another while; see `RunJournal.renew`."""
        await checkpoint()
        held = []
        for lease in leases:
            kept = self._runs.get(lease.run_id)
            try:
                _check(kept, lease).until = self._now() + self._lease_seconds
            except LeaseLost:
                continue
            held.append(lease.run_id)
        cancelling = (run_id for run_id in held if self._runs[run_id].record.cancelling)
        return Renewal(held=frozenset(held), cancelling=frozenset(cancelling))

    async def release(self, leases: Sequence[Lease]) -> None:
        """Give leases up; see `RunJournal.release`."""
        await checkpoint()
        for lease in leases:
            kept = self._runs.get(lease.run_id)
            if kept is not None and (kept.holder, kept.number) == (lease.holder, lease.number):
                kept.holder = None

    async def append(self, lease: Lease, events: Sequence[Event], ending: Ending | None = None) -> None:
        """Write the next events of a run; see `RunJournal.append`."""
        await checkpoint()
        kept = _check(self._runs.get(lease.run_id), lease)
        self._write(kept, events, ending)

    async def keep_answer(self, lease: Lease, key: AnswerKey, answer: ModelResponse) -> None:
        """Keep a paid answer; see `RunJournal.keep_answer`."""
        await checkpoint()
        kept = _check(self._runs.get(lease.run_id), lease)
        encoded = encode_answer(answer)
        kept.answers[key] = encoded
        kept.record = replace(kept.record, bytes=kept.record.bytes + len(encoded))

    async def record(
        self,
        run: RunRecord,
        events: Sequence[Event],
        ending: Ending,
        answers: Mapping[AnswerKey, ModelResponse],
    ) -> None:
        """Write a run that has ended, whole; see `EndedRuns.record`."""
        await checkpoint()
        paid = {key: encode_answer(answer) for key, answer in answers.items()}
        kept = self._add(run, run.created)
        kept.answers = paid
        size = kept.record.bytes + sum(map(len, paid.values()))
        kept.record = replace(kept.record, bytes=size, executions=1)
        self._write(kept, events, ending)

    async def answer_keys(self, run_id: str) -> frozenset[AnswerKey]:
        """Return the keys of the answers that were kept for the run."""
        await checkpoint()
        kept = self._runs.get(run_id)
        return frozenset() if kept is None else frozenset(kept.answers)

    async def answer(self, run_id: str, key: AnswerKey) -> ModelResponse | None:
        """Return the answer that was kept under `key`; None: there is none."""
        await checkpoint()
        kept = self._runs.get(run_id)
        encoded = None if kept is None else kept.answers.get(key)
        return None if encoded is None else decode_answer(encoded)

    async def read(self, run_id: str, after: int = -1, limit: int = 256) -> list[Event]:
        """Return the events behind `after`; see `RunJournal.read`."""
        await checkpoint()
        kept = self._runs.get(run_id)
        found: list[Event] = []
        size = 0
        for event in [] if kept is None else kept.events[after + 1 : after + 1 + limit]:
            found.append(decode_event(event))
            size += len(event)
            if size >= PAGE_BYTES:
                break
        return found

    async def changed(self, run_id: str, after: int) -> None:
        """Wait until there may be more to read; see `RunJournal.changed`."""
        kept = self._runs.get(run_id)
        if kept is None or kept.record.has_ended or kept.record.events > after + 1:
            await checkpoint()
            return
        await self._changes.wait(run_id, after, inf)

    async def cancel(self, run_id: str, event: Event, ending: Ending) -> RunRecord | None:
        """Ask for the end of a run; see `RunJournal.cancel`."""
        await checkpoint()
        kept = self._runs.get(run_id)
        if kept is None:
            return None
        if not kept.record.has_ended:
            kept.record = replace(kept.record, cancelling=True)
            if not kept.is_held(self._now()):
                time = decode_event(kept.events[-1]).time if kept.events else 0.0
                self._write(kept, [replace(event, run_id=run_id, seq=kept.record.events, time=time)], ending)
        return kept.record

    async def delete(self, run_id: str) -> bool:
        """Remove a run that has ended; see `RunJournal.delete`."""
        await checkpoint()
        kept = self._runs.get(run_id)
        if kept is None or not kept.record.has_ended:
            return False
        self._remove(kept.record)
        return True

    async def prune(self) -> int:
        """Remove what the retention does not keep; return how many runs that were."""
        await checkpoint()
        ended = [kept.record for kept in self._runs.values() if kept.record.has_ended]
        ended.sort(key=lambda record: record.ended or 0.0)
        total = sum(kept.record.bytes for kept in self._runs.values())
        oldest = -inf if self._retention.seconds is None else self._now() - self._retention.seconds
        most = inf if self._retention.bytes is None else self._retention.bytes
        removed = 0
        for record in ended:
            if (record.ended or 0.0) >= oldest and total <= most:
                break
            total -= record.bytes
            self._remove(record)
            removed += 1
        return removed

    async def add_delivery(self, delivery: Delivery) -> None:
        """Keep a notice; see `DeliveryJournal.add_delivery`."""
        await checkpoint()
        self._deliveries[delivery.id] = _Waiting(delivery, self._now())

    async def take_deliveries(self, limit: int, hold: float) -> list[Delivery]:
        """Return notices that are due; see `DeliveryJournal.take_deliveries`."""
        await checkpoint()
        now = self._now()
        found: list[Delivery] = []
        for name, waiting in list(self._deliveries.items()):
            kept = self._runs.get(waiting.delivery.run_id)
            if kept is None and waiting.added < now - DELIVERY_ORPHANED:
                del self._deliveries[name]
            if kept is None or not kept.record.has_ended or waiting.due > now or len(found) == limit:
                continue
            waiting.due = now + hold
            found.append(waiting.delivery)
        return found

    async def settle_delivery(self, delivery_id: str, again_in: float | None = None) -> None:
        """Drop a notice, or keep it for later; see `DeliveryJournal.settle_delivery`."""
        await checkpoint()
        if again_in is None:
            self._deliveries.pop(delivery_id, None)
        elif waiting := self._deliveries.get(delivery_id):
            waiting.delivery = replace(waiting.delivery, attempts=waiting.delivery.attempts + 1)
            waiting.due = self._now() + again_in

    async def aclose(self) -> None:
        """Do nothing: the runs stay, as long as this object does."""
        await checkpoint()

    def _add(self, run: RunRecord, created: float) -> _Kept:
        spec = encode_spec(run.spec)
        size = len(spec) + len(encode_tags(run.tags))
        record = replace(run, spec=decode_spec(spec), created=created, state="queued", events=0, bytes=size)
        kept = self._runs[run.run_id] = _Kept(record)
        if run.idempotency_key is not None:
            self._by_key[run.owner, run.idempotency_key] = run.run_id
        return kept

    def _given(self, kept: _Kept, holder: str) -> Claim:
        kept.holder, kept.number = holder, kept.number + 1
        kept.until = self._now() + self._lease_seconds
        kept.record = replace(kept.record, executions=kept.number)
        lease = Lease(run_id=kept.record.run_id, holder=holder, number=kept.number)
        return Claim(run=kept.record, lease=lease)

    def _write(self, kept: _Kept, events: Sequence[Event], ending: Ending | None) -> None:
        encoded = [encode_event(event) for event in events if event.seq >= len(kept.events)]
        kept.events += encoded
        size = kept.record.bytes + sum(map(len, encoded))
        record = replace(kept.record, events=len(kept.events), bytes=size, state="running")
        if ending is not None:
            kept.holder = None
            record = replace(
                record, state=ending.state, code=ending.code, message=ending.message, ended=self._now()
            )
        kept.record = record
        self._changes.written(record.run_id, record.events - 1)

    def _remove(self, record: RunRecord) -> None:
        del self._runs[record.run_id]
        if record.idempotency_key is not None:
            del self._by_key[record.owner, record.idempotency_key]
        self._changes.wake(record.run_id)


def _check(kept: _Kept | None, lease: Lease) -> _Kept:
    if kept is None:
        raise LeaseLost
    kept.check(lease)
    return kept
