"""The counters of one shard of a store."""

from __future__ import annotations

import threading

from msgspec import structs

from ultra.stores.contracts import CacheStatistics

__all__ = ["ShardCounters"]


class ShardCounters:
    """Counts what one shard does. Any thread may count and read."""

    def __init__(self, *, entries: int = 0, size: int = 0) -> None:
        self._lock = threading.Lock()
        self._counts = CacheStatistics(entries=entries, bytes=size)

    def add(self, **more: int) -> None:
        """Add to counters of `CacheStatistics`, given by their names."""
        with self._lock:
            counts = {name: getattr(self._counts, name) + number for name, number in more.items()}
            self._counts = structs.replace(self._counts, **counts)

    def holds(self, *, entries: int, size: int) -> None:
        """Note how many answers the shard holds now, and how many bytes they take up."""
        with self._lock:
            self._counts = structs.replace(self._counts, entries=entries, bytes=size)

    def read(self) -> CacheStatistics:
        """Return the counters as they are now."""
        with self._lock:
            return self._counts
