"""A fence around a journal: what goes wrong in it is `JournalUnavailable` or `JournalDamaged`, nothing else.

A journal may be anybody's code, and its file may have been written to by others, or be damaged.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from ultra.errors import BadCall, JournalDamaged, JournalUnavailable
from ultra.messages.events import Event
from ultra.messages.results import ModelResponse
from ultra.stores.batch_contract import Batch, KeepsBatches
from ultra.stores.connections import keep_connected
from ultra.stores.delivery_contract import Delivery, DeliveryJournal
from ultra.stores.journal_contract import Claim, LeaseLost, Renewal, RunRecord
from ultra.stores.journal_encoding import Damaged

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ultra.stores.batch_contract import BatchStore
    from ultra.stores.contracts import TaskStatus
    from ultra.stores.journal_contract import AnswerKey, Ending, Lease, RunJournal, RunState

__all__ = ["FencedJournal"]

T = TypeVar("T")


class FencedJournal:
    """The journal `inner`, with its errors in two classes, and its answers checked. A `RunJournal`.

    All methods do what `RunJournal` says, and raise besides `JournalDamaged` where what is written of a run
    cannot be read. Cancellation and `LeaseLost` go through.
    """

    def __init__(self, inner: RunJournal) -> None:
        self.inner = inner
        self._name = f"{type(inner).__module__}.{type(inner).__qualname__}"

    @property
    def lease_seconds(self) -> float:
        """Seconds for which a lease holds."""
        return self.inner.lease_seconds

    async def add(self, run: RunRecord, holder: str | None = None) -> Claim | RunRecord:
        """Accept a run."""
        with self.fence(run.run_id):
            return _checked(await self.inner.add(run, holder), Claim, RunRecord)

    async def get(self, run_id: str) -> RunRecord | None:
        """Return the run; None: there is none."""
        with self.fence(run_id):
            return _checked(await self.inner.get(run_id), RunRecord, type(None))

    async def list_runs(
        self,
        *,
        owner: str | None = None,
        states: Sequence[RunState] = (),
        before: str | None = None,
        limit: int = 100,
    ) -> list[RunRecord]:
        """Return runs, the last accepted first."""
        with self.fence():
            found = await self.inner.list_runs(owner=owner, states=states, before=before, limit=limit)
            return _all_checked(found, RunRecord)

    async def claim(self, holder: str, *, limit: int) -> list[Claim]:
        """Give `holder` the leases of runs that nobody holds."""
        with self.fence():
            return _all_checked(await self.inner.claim(holder, limit=limit), Claim)

    async def renew(self, leases: Sequence[Lease]) -> Renewal:
        """Let leases hold for another while."""
        with self.fence():
            return _checked(await self.inner.renew(leases), Renewal)

    async def release(self, leases: Sequence[Lease]) -> None:
        """Give leases up."""
        with self.fence():
            await self.inner.release(leases)

    async def append(self, lease: Lease, events: Sequence[Event], ending: Ending | None = None) -> None:
        """Write the next events of a run."""
        with self.fence(lease.run_id):
            await self.inner.append(lease, events, ending)

    async def keep_answer(self, lease: Lease, key: AnswerKey, answer: ModelResponse) -> None:
        """Keep a paid answer."""
        with self.fence(lease.run_id):
            await self.inner.keep_answer(lease, key, answer)

    async def answer_keys(self, run_id: str) -> frozenset[AnswerKey]:
        """Return the keys of the answers that were kept for the run."""
        with self.fence(run_id):
            return frozenset(_all_checked(list(await self.inner.answer_keys(run_id)), bytes))

    async def answer(self, run_id: str, key: AnswerKey) -> ModelResponse | None:
        """Return the answer that was kept under `key`."""
        with self.fence(run_id):
            return _checked(await self.inner.answer(run_id, key), ModelResponse, type(None))

    async def read(self, run_id: str, after: int = -1, limit: int = 256) -> list[Event]:
        """Return the events behind `after`."""
        with self.fence(run_id):
            return _all_checked(await self.inner.read(run_id, after, limit), Event)

    async def changed(self, run_id: str, after: int) -> None:
        """Wait until there may be more to read."""
        with self.fence(run_id):
            await self.inner.changed(run_id, after)

    async def cancel(self, run_id: str, event: Event, ending: Ending) -> RunRecord | None:
        """Ask for the end of a run."""
        with self.fence(run_id):
            return _checked(await self.inner.cancel(run_id, event, ending), RunRecord, type(None))

    async def delete(self, run_id: str) -> bool:
        """Remove a run that has ended."""
        with self.fence(run_id):
            return _checked(await self.inner.delete(run_id), bool)

    async def prune(self) -> int:
        """Remove what the retention does not keep."""
        with self.fence():
            return _checked(await self.inner.prune(), int)

    async def keep_connected(self, *, task_status: TaskStatus | None = None) -> None:
        """Keep the connections of the journal, if it has any."""
        await keep_connected(self.inner, task_status)

    async def aclose(self) -> None:
        """Release what the journal holds."""
        with self.fence():
            await self.inner.aclose()

    @property
    def deliveries(self) -> DeliveryJournal | None:
        """Its notices, with the same fence; None: it keeps none."""
        return _FencedDeliveries(self, self.inner) if isinstance(self.inner, DeliveryJournal) else None

    @property
    def batches(self) -> BatchStore | None:
        """Its batches, with the same fence; None: it keeps none."""
        found = self.inner.batches if isinstance(self.inner, KeepsBatches) else None
        return None if found is None else _FencedBatches(self, found)

    @contextmanager
    def fence(self, name: str | None = None, what: str = "run") -> Iterator[None]:
        """Turn what goes wrong in the block into the two classes; `name`: of the run that it is about."""
        try:
            yield
        except (LeaseLost, JournalUnavailable, BadCall):
            raise
        except Damaged as error:
            if name is None:
                raise JournalUnavailable(self._name, error) from error
            raise JournalDamaged(name, error, what=what) from error
        except Exception as error:
            raise JournalUnavailable(self._name, error) from error


class _FencedDeliveries:
    """The notices of a journal. A `DeliveryJournal`."""

    def __init__(self, journal: FencedJournal, inner: DeliveryJournal) -> None:
        self._journal = journal
        self._inner = inner

    async def add_delivery(self, delivery: Delivery) -> None:
        with self._journal.fence(delivery.run_id):
            await self._inner.add_delivery(delivery)

    async def take_deliveries(self, limit: int, hold: float) -> Sequence[Delivery]:
        with self._journal.fence():
            return _all_checked(list(await self._inner.take_deliveries(limit, hold)), Delivery)

    async def settle_delivery(self, delivery_id: str, again_in: float | None = None) -> None:
        with self._journal.fence():
            await self._inner.settle_delivery(delivery_id, again_in)


class _FencedBatches:
    """The batches of a journal. A `BatchStore`."""

    def __init__(self, journal: FencedJournal, inner: BatchStore) -> None:
        self._journal = journal
        self._inner = inner

    async def add(self, batch: Batch, lines: bytes) -> Batch:
        with self._journal.fence(batch.id, "batch"):
            return _checked(await self._inner.add(batch, lines), Batch)

    async def get(self, batch_id: str) -> Batch | None:
        with self._journal.fence(batch_id, "batch"):
            return _checked(await self._inner.get(batch_id), Batch, type(None))

    async def lines(self, batch_id: str) -> bytes:
        with self._journal.fence(batch_id, "batch"):
            return _checked(await self._inner.lines(batch_id), bytes)

    async def hold(self, holder: str, seconds: float) -> Sequence[Batch]:
        with self._journal.fence():
            return _all_checked(list(await self._inner.hold(holder, seconds)), Batch)

    async def update(self, batch_id: str, changes: Mapping[str, Any]) -> Batch | None:
        with self._journal.fence(batch_id, "batch"):
            return _checked(await self._inner.update(batch_id, changes), Batch, type(None))


def _checked(found: T, *kinds: Any) -> T:  # noqa: ANN401 - types, and unions of them
    if not isinstance(found, kinds):
        raise TypeError(f"it returned a {type(found).__name__}")
    return found


def _all_checked(found: list[T], *kinds: Any) -> list[T]:  # noqa: ANN401 - as above
    for each in _checked(found, list):
        _checked(each, *kinds)
    return found
