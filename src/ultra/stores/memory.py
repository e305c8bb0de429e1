"""A store that keeps models' answers in the memory of this process."""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, ClassVar, Final, NamedTuple

import msgspec
import trio

from ultra._support.checks import check_count, check_seconds
from ultra._support.clock import ContinuousClock
from ultra._support.randomness import new_secret
from ultra.stores.contracts import SECRET_BYTES, CacheStatistics, is_whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from ultra.messages import Completion
    from ultra.stores.contracts import CacheKey

__all__ = ["MemoryCache", "MemoryShard"]

# Bytes that CPython needs beside the text of an entry: structs, key, and places in two ordered dicts.
_ENTRY_OVERHEAD: Final = 700


class _Entry(NamedTuple):
    completion: Completion
    size: int


class MemoryShard:
    """One model's answers in memory. The least recently used go first, and those that are too old.

    A lookup is a few microseconds of work on dictionaries, under a lock, so orchestrators in several
    threads can share a shard. `get` and `put` are async only because the protocol is: they never wait,
    and are no checkpoints.
    """

    instant: ClassVar = True
    """Its methods never wait."""

    def __init__(
        self, *, max_entries: int, max_bytes: int, ttl: float | None, now: Callable[[], float] | None = None
    ) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._ttl = ttl
        self._now = now if now is not None else ContinuousClock()
        self._lock = threading.Lock()
        self._entries: OrderedDict[CacheKey, _Entry] = OrderedDict()  # least recently used first
        self._expiries: OrderedDict[CacheKey, float] = OrderedDict()  # oldest first; empty without a ttl
        self._bytes = 0
        self._hits = self._misses = self._stored = self._refused = self._evictions = self._expirations = 0

    async def get(self, key: CacheKey) -> Completion | None:
        """Return the answer that is kept under `key`, or None. Not a checkpoint."""
        with self._lock:
            self._expire()
            entry = self._entries.get(key)
            if entry is None:
                self._misses += 1
                return None
            self._entries.move_to_end(key)
            self._hits += 1
            return entry.completion

    async def put(self, key: CacheKey, completion: Completion) -> None:
        """Keep `completion` under `key`, in place of an older answer, if it is whole. Not a checkpoint."""
        size = _memory_size(completion)
        with self._lock:
            self._expire()
            if size > self._max_bytes or not is_whole(completion):
                self._refused += 1
                return
            self._drop(key)
            while len(self._entries) >= self._max_entries or self._bytes + size > self._max_bytes:
                self._drop(next(iter(self._entries)))
                self._evictions += 1
            self._entries[key] = _Entry(completion, size)
            self._bytes += size
            self._stored += 1
            if self._ttl is not None:
                self._expiries[key] = self._now() + self._ttl

    def statistics(self) -> CacheStatistics:
        """Return the counters of this shard; expired answers count as entries until the next lookup."""
        with self._lock:
            return CacheStatistics(
                hits=self._hits,
                misses=self._misses,
                stored=self._stored,
                refused=self._refused,
                evictions=self._evictions,
                expirations=self._expirations,
                entries=len(self._entries),
                bytes=self._bytes,
            )

    def clear(self) -> None:
        """Remove all answers; the counters stay."""
        with self._lock:
            self._entries.clear()
            self._expiries.clear()
            self._bytes = 0

    def _expire(self) -> None:
        if self._ttl is None:
            return
        now = self._now()
        while self._expiries and next(iter(self._expiries.values())) <= now:
            self._drop(next(iter(self._expiries)))
            self._expirations += 1

    def _drop(self, key: CacheKey) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= entry.size
            self._expiries.pop(key, None)


def _memory_size(completion: Completion) -> int:
    values = msgspec.structs.astuple(completion)
    return _ENTRY_OVERHEAD + sum(sys.getsizeof(value) for value in values if isinstance(value, str))


class MemoryCache:
    """Keeps answers in the memory of this process. The bounds are those of each model's shard.

    Args:
        max_entries: how many answers a shard keeps at most.
        max_bytes: how much memory the answers of a shard take up at most; a bigger answer is not kept.
        ttl: seconds for which an answer is good, by trio's clock; None: for ever.

    Raises:
        BadCall: a bound is not a number above 0.
    """

    def __init__(
        self, *, max_entries: int = 4096, max_bytes: int = 64 * 2**20, ttl: float | None = 3600.0
    ) -> None:
        check_count("max_entries", max_entries)
        check_count("max_bytes", max_bytes)
        check_seconds("ttl", ttl, positive=True, optional=True)
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._ttl = ttl
        self._shards: dict[str, MemoryShard] = {}
        self._secret = new_secret(SECRET_BYTES)

    @property
    def secret(self) -> bytes:
        """32 random bytes, other ones for each store."""
        return self._secret

    def shard(self, name: str) -> MemoryShard:
        """Return the shard of the model `name`, the same one each time."""
        shard = self._shards.get(name)
        if shard is None:
            made = MemoryShard(max_entries=self._max_entries, max_bytes=self._max_bytes, ttl=self._ttl)
            shard = self._shards.setdefault(name, made)  # another thread may have been first
        return shard

    async def aclose(self) -> None:
        """Remove all answers, even if this is cancelled. A checkpoint."""
        for shard in list(self._shards.values()):
            shard.clear()
        await trio.lowlevel.checkpoint()
