"""Limits in the memory of one process. They end with it."""

from __future__ import annotations

import threading
import time
from heapq import heappop, heappush
from typing import TYPE_CHECKING

import anyio.lowlevel

from ultra.stores import limit_rules as rules
from ultra.stores.contracts import GRANT_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from ultra.stores.contracts import Decision, Want
    from ultra.stores.limit_rules import LimitRow

__all__ = ["MemoryLimits"]


class MemoryLimits:
    """Keeps limits in memory; see `SharedLimits`. Any thread may use it. `now` is the wall clock."""

    def __init__(self, *, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._table = _Table()

    async def take(self, wants: Sequence[Want]) -> Decision:
        """See `SharedLimits.take`. A checkpoint, ahead of the taking."""
        await anyio.lowlevel.checkpoint()
        with self._lock:
            return rules.take(self._table, wants, self._now())

    async def settle(self, grant: str, used: Mapping[str, float]) -> None:
        """See `SharedLimits.settle`. No checkpoint."""
        with self._lock:
            rules.settle(self._table, grant, used, self._now())

    async def renew(self, grants: Sequence[str]) -> None:
        """See `SharedLimits.renew`. No checkpoint."""
        with self._lock:
            rules.renew(self._table, grants, self._now())

    async def aclose(self) -> None:
        """Do nothing: the limits are kept as long as this object."""


class _Table:
    def __init__(self) -> None:
        self._rows: dict[str, LimitRow] = {}
        self._grants: dict[str, tuple[Sequence[Want], float]] = {}
        # Heaps by the time of their end; what has another end by then is put back.
        self._row_ends: list[tuple[float, str]] = []
        self._grant_ends: list[tuple[float, str]] = []

    def row(self, name: str) -> LimitRow | None:
        return self._rows.get(name)

    def set_row(self, name: str, row: LimitRow) -> None:
        if name not in self._rows:
            heappush(self._row_ends, (row.until, name))
        self._rows[name] = row

    def drop_rows(self, now: float) -> None:
        while self._row_ends and self._row_ends[0][0] <= now:
            _, name = heappop(self._row_ends)
            row = self._rows[name]
            if row.until <= now and not row.held:
                del self._rows[name]
            else:
                heappush(self._row_ends, (max(row.until, now + GRANT_SECONDS), name))

    def add_grant(self, grant: str, wants: Sequence[Want], ends: float) -> None:
        self._grants[grant] = (tuple(wants), ends)
        heappush(self._grant_ends, (ends, grant))

    def end_grant(self, grant: str) -> Iterable[Want] | None:
        found = self._grants.pop(grant, None)
        return None if found is None else found[0]

    def extend_grant(self, grant: str, ends: float) -> None:
        if grant in self._grants:
            self._grants[grant] = (self._grants[grant][0], ends)

    def ended_grants(self, now: float) -> Iterable[str]:
        ended: list[str] = []
        while self._grant_ends and self._grant_ends[0][0] <= now:
            _, grant = heappop(self._grant_ends)
            found = self._grants.get(grant)
            if found is not None and found[1] <= now:
                ended.append(grant)
            elif found is not None:
                heappush(self._grant_ends, (found[1], grant))
        return ended
