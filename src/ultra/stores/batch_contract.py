"""Batches of runs, which a journal keeps until all of their runs have ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["BATCH_KEPT", "Batch", "BatchStore", "KeepsBatches"]

BATCH_KEPT = 30 * 86_400.0
"""Seconds for which a batch is kept after its end."""


class Batch(Struct, frozen=True, kw_only=True):
    """A batch. Times are seconds of the wall clock.

    Attributes:
        id: its name.
        owner: for whom it is.
        total: how many runs it has; `lines` has what each is to do, as its maker wrote it.
        concurrency: how many of them run at once.
        completed, failed, cancelled: how many have ended so.
        errors: why runs could not be begun, by the number of their line.
        cancelling: whether no more runs are to begin.
        created, ended: when it was accepted, and when the last run had ended.
    """

    id: str
    owner: str | None = None
    total: int
    concurrency: int
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    errors: dict[str, dict[str, str]] = {}
    cancelling: bool = False
    created: float = 0.0
    ended: float | None = None


class BatchStore(Protocol):
    """The batches of a journal; all methods raise `JournalUnavailable`.

    Those of one batch raise `Damaged` where what is kept of it cannot be read.
    """

    async def add(self, batch: Batch, lines: bytes) -> Batch:
        """Accept a batch, and return it; one of the same id that is there already is returned as it is."""
        ...

    async def get(self, batch_id: str) -> Batch | None:
        """Return a batch; None: there is none."""
        ...

    async def lines(self, batch_id: str) -> bytes:
        """Return what the runs of a batch are to do; empty: there is no such batch."""
        ...

    async def hold(self, holder: str, seconds: float) -> Sequence[Batch]:
        """Give `holder` the batches that have not ended and nobody else holds, for so many seconds.

        One that is damaged ends, and is left out.
        """
        ...

    async def update(self, batch_id: str, changes: Mapping[str, Any]) -> Batch | None:
        """Change fields of a batch, and return it; None: there is none."""
        ...


@runtime_checkable
class KeepsBatches(Protocol):
    """A journal that keeps batches beside its runs."""

    @property
    def batches(self) -> BatchStore | None:
        """Where they are."""
        ...
