"""The batches of the journal in memory."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace
from trio.lowlevel import checkpoint

from ultra.stores.batch_contract import BATCH_KEPT
from ultra.stores.journal_contract import latest_end

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ultra.stores.batch_contract import Batch

__all__ = ["MemoryBatches"]


class _Kept:
    def __init__(self, batch: Batch, lines: bytes) -> None:
        self.batch = batch
        self.lines = lines
        self.holder: str | None = None
        self.until = -inf


class MemoryBatches:
    """A `BatchStore` in memory."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._kept: dict[str, _Kept] = {}

    async def add(self, batch: Batch, lines: bytes) -> Batch:
        """Accept a batch."""
        await checkpoint()
        kept = self._kept.setdefault(batch.id, _Kept(replace(batch, created=self._now()), lines))
        return kept.batch

    async def get(self, batch_id: str) -> Batch | None:
        """Return a batch."""
        await checkpoint()
        kept = self._kept.get(batch_id)
        return None if kept is None else kept.batch

    async def lines(self, batch_id: str) -> bytes:
        """Return what its runs are to do."""
        await checkpoint()
        kept = self._kept.get(batch_id)
        return b"" if kept is None else kept.lines

    async def hold(self, holder: str, seconds: float) -> list[Batch]:
        """Give `holder` the batches that nobody else holds."""
        await checkpoint()
        now = self._now()
        found: list[Batch] = []
        for name, kept in list(self._kept.items()):
            if kept.batch.ended is not None:
                if kept.batch.ended < now - BATCH_KEPT:
                    del self._kept[name]
            elif kept.holder in {None, holder} or not now < kept.until <= latest_end(now, seconds):
                kept.holder, kept.until = holder, now + seconds
                found.append(kept.batch)
        return found

    async def update(self, batch_id: str, changes: Mapping[str, Any]) -> Batch | None:
        """Change fields of a batch."""
        await checkpoint()
        kept = self._kept.get(batch_id)
        if kept is None:
            return None
        kept.batch = replace(kept.batch, **changes)
        return kept.batch
