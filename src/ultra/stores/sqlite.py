"""Keeps models' answers in one SQLite file, which several processes may share.

All work on the file happens in worker threads: one at a time reads and one at a time writes, each
with a connection of its own, so that a lookup does not wait for a commit. Whatever happens to the
file while it is in use, it is a cache: its failures are misses, and a warning in the log.
"""

from __future__ import annotations

import secrets
import sqlite3
import threading
import time
import weakref
from typing import TYPE_CHECKING, Concatenate, Final, ParamSpec, TypeVar

import msgspec
import trio

from ultra._support.checks import check_count, check_seconds
from ultra.errors import BadCall, ConfigError
from ultra.stores.answers import encode
from ultra.stores.contracts import SECRET_BYTES, CacheStatistics, is_whole
from ultra.stores.outage import Outage, Unavailable
from ultra.stores.sqlite_file import Contents, ShardTable, connect, is_busy, row_size, survey

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from ultra.messages.results import Completion
    from ultra.stores.contracts import CacheKey

__all__ = ["SqliteCache", "SqliteShard"]

P = ParamSpec("P")
T = TypeVar("T")

# Uses that are noted in memory until the next write; beyond that the oldest are forgotten.
_MAX_TOUCHED: Final = 4096

# What the file may do to us: SQLite's errors, those of the system, bytes that are no answer, another format.
_FAILURES: Final = (sqlite3.Error, OSError, msgspec.MsgspecError, ConfigError)


class _Lane:
    """One connection, used by one worker thread at a time, and opened again after it has failed."""

    def __init__(self, purpose: str, path: str, busy_timeout: float) -> None:
        self._purpose = purpose
        self._path = path
        self._busy_timeout = busy_timeout
        self._lock = threading.Lock()  # also against threads that a cancelled task has left behind
        self._connection: sqlite3.Connection | None = None
        self._finalizer: weakref.finalize[..., _Lane] | None = None
        self._limiter: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar(purpose)
        self.outage = Outage(store=path, purpose=purpose)

    async def run(
        self, work: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Do `work` in a worker thread. After a cancellation it is done or it is not.

        Raises:
            Unavailable: it failed, or has failed so recently that it was not tried.
        """
        await self.outage.check()
        try:
            result = await trio.to_thread.run_sync(
                lambda: self.run_sync(work, *args, **kwargs),
                abandon_on_cancel=True,
                limiter=self._run_limiter(),
            )
        except _FAILURES as error:
            # A file that is busy, or has one bad answer, is not out.
            if is_busy(error) or isinstance(error, msgspec.MsgspecError):
                self.outage.warn(error)
            else:
                self.outage.begin(error)
            raise Unavailable from error
        self.outage.end()
        return result

    def run_sync(
        self, work: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Do `work` in this thread. Raises one of `_FAILURES`."""
        with self._lock:
            if self._connection is None:
                writing = self._purpose == "write"
                self._connection = connect(self._path, busy_timeout=self._busy_timeout, writing=writing)
                self._finalizer = weakref.finalize(self, self._connection.close)
            try:
                return work(self._connection, *args, **kwargs)
            except (sqlite3.Error, OSError) as error:
                if not is_busy(error):
                    self._close()
                raise

    def close(self) -> None:
        """Close the connection; the next use opens it again."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._finalizer is not None:
            self._finalizer()  # closes the connection, once
        self._connection = self._finalizer = None

    def _run_limiter(self) -> trio.CapacityLimiter:
        # One per trio run: a limiter must not be shared by the loops of two threads.
        try:
            return self._limiter.get()
        except LookupError:
            self._limiter.set(trio.CapacityLimiter(1))
            return self._limiter.get()


class SqliteShard:
    """One model's answers in the file. Its counters are this process's own."""

    def __init__(
        self,
        table: ShardTable,
        reader: _Lane,
        writer: _Lane,
        *,
        max_bytes: int,
        ttl: float | None,
        now: Callable[[], float],
        size: tuple[int, int],
    ) -> None:
        self._table = table
        self._reader = reader
        self._writer = writer
        self._max_bytes = max_bytes
        self._ttl = ttl
        self._now = now
        self._lock = threading.Lock()
        self._touched: dict[CacheKey, None] = {}  # used since the last write, the last one last
        self._counts = CacheStatistics(entries=size[0], bytes=size[1])

    async def get(self, key: CacheKey) -> Completion | None:
        """The answer kept under `key`, or None, also where the file cannot be read. A checkpoint.

        Cancelling it leaves the shard as it was.
        """
        try:
            found = await self._reader.run(self._table.read, key)
        except Unavailable:
            self._count(misses=1, failures=1)
            return None
        if found is None or not self._is_fresh(found[1]):
            self._count(misses=1)
            return None
        self._count(hits=1)
        self._touch(key)
        return found[0]

    async def put(self, key: CacheKey, completion: Completion) -> None:
        """Keep a whole answer under `key`, where the file can be written. A checkpoint.

        After a cancellation it was kept or it was not.
        """
        answer = encode(completion)
        if not is_whole(completion) or row_size(answer) > self._max_bytes:
            self._count(refused=1)
            await trio.lowlevel.checkpoint()
            return
        try:
            done = await self._writer.run(
                self._table.write,
                key,
                answer,
                written=self._now(),
                touched=self._take_touched(),
                max_bytes=self._max_bytes,
                ttl=self._ttl,
            )
        except Unavailable:
            self._count(failures=1)
            return
        self._count(stored=1, evictions=done.evicted, expirations=done.expired)
        with self._lock:
            self._counts = msgspec.structs.replace(self._counts, entries=done.entries, bytes=done.bytes)

    def statistics(self) -> CacheStatistics:
        """The counters of this process. `entries` and `bytes` are as of its last write or opening."""
        with self._lock:
            return self._counts

    def flush(self, connection: sqlite3.Connection) -> None:
        """Write down which answers were used. Blocks."""
        touched = self._take_touched()
        if touched:
            self._table.touch(connection, touched)

    def _is_fresh(self, written: float) -> bool:
        # Either way: an answer from the future was written by a clock that was wrong, and would
        # otherwise be good until that future.
        return self._ttl is None or abs(self._now() - written) < self._ttl

    def _touch(self, key: CacheKey) -> None:
        with self._lock:
            self._touched.pop(key, None)
            self._touched[key] = None
            if len(self._touched) > _MAX_TOUCHED:
                del self._touched[next(iter(self._touched))]

    def _take_touched(self) -> list[CacheKey]:
        with self._lock:
            touched = list(self._touched)
            self._touched.clear()
        return touched

    def _count(self, **more: int) -> None:
        with self._lock:
            counts = {name: getattr(self._counts, name) + number for name, number in more.items()}
            self._counts = msgspec.structs.replace(self._counts, **counts)


class SqliteCache:
    """Keeps answers in the SQLite file at `path`, created where absent, readable by its owner only.

    Opening it blocks for some milliseconds, so make it before the loop is busy; nothing after that
    does. A file that cannot be opened, read or written (no such directory, read-only, disk full) is
    left alone for a while after each warning, and tried again then.

    Args:
        path: of the file; two more of the same name, ending in ``-wal`` and ``-shm``, stand beside it.
        max_bytes: what one model's answers take up at most; the least recently used go first. The file
            grows to that for each model, and some.
        ttl: seconds for which an answer is good; None: for ever. By the wall clock, since trio's
            clock means nothing to the next process or to another one.
        busy_timeout: seconds to wait for another process's write.
        now: the wall clock.

    Raises:
        BadCall: an argument is out of its range.
        ConfigError: the file is not a cache of Ultra's, or one of a newer version. It is not touched.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_bytes: int = 256 * 2**20,
        ttl: float | None = 7 * 86400.0,
        busy_timeout: float = 1.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._path = str(path)
        if self._path in {"", ":memory:"} or "\0" in self._path:
            raise BadCall(f"path is {self._path!r}; it must be the path of a file")
        check_count("max_bytes", max_bytes)
        check_seconds("busy_timeout", busy_timeout, positive=True)
        check_seconds("ttl", ttl, positive=True, optional=True)
        self._max_bytes = max_bytes
        self._ttl = ttl
        self._now = now
        self._writer = _Lane("write", self._path, busy_timeout)
        self._reader = _Lane("read", self._path, busy_timeout)
        self._shards: dict[str, SqliteShard] = {}
        self._lock = threading.Lock()
        self._opened_with = self._open()

    @property
    def secret(self) -> bytes:
        """32 random bytes kept in the file; where it cannot be opened, new ones for this store."""
        return self._opened_with.secret

    def shard(self, name: str) -> SqliteShard:
        """The shard of the model `name`: the same one each time."""
        with self._lock:
            shard = self._shards.get(name)
            if shard is None:
                table = ShardTable(name)
                shard = self._shards[name] = SqliteShard(
                    table,
                    self._reader,
                    self._writer,
                    max_bytes=self._max_bytes,
                    ttl=self._ttl,
                    now=self._now,
                    size=self._opened_with.sizes.get(table.name, (0, 0)),
                )
            return shard

    async def aclose(self) -> None:
        """Close the file; a later use opens it again. Not cut short by cancellation: it takes little time."""
        with trio.CancelScope(shield=True):
            # A limiter of its own: the program's threads may all be busy, for longer than this may take.
            await trio.to_thread.run_sync(self._close, limiter=trio.CapacityLimiter(1))
        await trio.lowlevel.checkpoint_if_cancelled()

    def _open(self) -> Contents:
        for lane in (self._writer, self._reader):  # a file that cannot be written may still be read
            try:
                return lane.run_sync(survey)
            except (sqlite3.Error, OSError) as error:
                lane.outage.warn(error)
        return Contents(secrets.token_bytes(SECRET_BYTES), {})

    def _close(self) -> None:
        for shard in list(self._shards.values()):
            try:
                self._writer.run_sync(shard.flush)
            except _FAILURES:  # what was used last is a detail that may be lost
                break
        self._writer.close()
        self._reader.close()
