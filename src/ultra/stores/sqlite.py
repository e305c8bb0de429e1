"""A store that keeps models' answers in one SQLite file, which several processes may share.

All work on the file is done in worker threads. One at a time reads and one at a time writes, each with a
connection of its own, so a lookup does not wait for a commit. When the file does not work, a lookup is a
miss, an answer is not kept, and the log has a warning: a cache is no reason to fail.
"""

from __future__ import annotations

import secrets
import sqlite3
import threading
import time
import weakref
from typing import TYPE_CHECKING, Concatenate, Final, ParamSpec, TypeVar

import trio

from ultra._support.checks import check_count, check_seconds
from ultra._support.forking import ClosedForFork
from ultra.errors import BadCall, ConfigError
from ultra.stores.contracts import SECRET_BYTES, is_whole
from ultra.stores.counters import ShardCounters
from ultra.stores.encoding import BadAnswer, encode_answer
from ultra.stores.outage import Outage, Unavailable
from ultra.stores.sqlite_connection import Snapshot, connect, is_busy
from ultra.stores.sqlite_file import CACHE_FILE, FileContents, ShardTable, read_contents, row_size

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from ultra.messages.results import Completion
    from ultra.stores.contracts import CacheKey, CacheStatistics

__all__ = ["SqliteCache", "SqliteShard", "check_path"]

P = ParamSpec("P")
T = TypeVar("T")

_MAX_TOUCHED: Final = 4096
"""How many uses of answers are remembered until the next write; beyond that the oldest are forgotten."""


class _FileConnection(ClosedForFork):
    """A connection to the file. One worker thread at a time uses it.

    After a failure, and where a process has forked, it is opened again.
    """

    def __init__(self, purpose: str, path: str, busy_timeout: float) -> None:
        super().__init__()
        self._purpose = purpose
        self._path = path
        self._busy_timeout = busy_timeout
        self._connection: sqlite3.Connection | None = None
        self._finalizer: weakref.finalize[..., _FileConnection] | None = None
        self._limiter: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar(purpose)
        self.outage = Outage(store=path, purpose=purpose)

    async def run(
        self, work: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Do `work` in a worker thread, and return its result. Cancelled, it was done or it was not.

        Raises:
            Unavailable: it failed; or the file has failed so recently that it was not tried.
        """
        await self.outage.check()
        try:
            result = await trio.to_thread.run_sync(
                lambda: self.run_sync(work, *args, **kwargs),
                abandon_on_cancel=True,
                limiter=self._run_limiter(),
            )
        except BadAnswer as error:  # one of many; the file can still be used
            self.outage.warn(error)
            raise Unavailable from error
        except Exception as error:
            # SQLite's errors, the system's (no more threads), and whatever a damaged file may lead to. A file
            # that is busy counts, too: else each use would wait for it, one behind the other.
            self.outage.begin(error)
            raise Unavailable from error
        self.outage.end()
        return result

    def run_sync(
        self, work: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Do `work` in this thread, and return its result; raise what it raises."""
        with self._lock:
            if self._connection is None:
                writing = self._purpose == "write"
                self._connection = connect(
                    self._path, CACHE_FILE, busy_timeout=self._busy_timeout, writing=writing
                )
                self._finalizer = weakref.finalize(self, self._connection.close)
            try:
                return work(self._connection, *args, **kwargs)
            except (sqlite3.Error, OSError) as error:
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

    def _close(self) -> None:
        if self._finalizer is not None:
            self._finalizer()  # closes the connection, once
        self._connection = self._finalizer = None

    def _run_limiter(self) -> trio.CapacityLimiter:
        # One for each trio run: the runs of two threads must not share a limiter.
        try:
            return self._limiter.get()
        except LookupError:
            self._limiter.set(trio.CapacityLimiter(1))
            return self._limiter.get()


class SqliteShard:
    """One model's answers in the file. The counters are those of this process."""

    def __init__(
        self,
        table: ShardTable,
        reader: _FileConnection,
        writer: _FileConnection,
        *,
        max_bytes: int,
        ttl: float | None,
        now: Callable[[], float],
        counters: ShardCounters,
    ) -> None:
        self._table = table
        self._reader = reader
        self._writer = writer
        self._max_bytes = max_bytes
        self._ttl = ttl
        self._now = now
        self._lock = threading.Lock()
        self._touched: dict[CacheKey, None] = {}  # used since the last write, the last one last
        self._counters = counters

    async def get(self, key: CacheKey) -> Completion | None:
        """Return the answer that is kept under `key`; None if there is none, or the file cannot be read.

        A checkpoint. Cancelled, it leaves the shard as it was.
        """
        try:
            found = await self._reader.run(self._table.read, key, max_bytes=self._max_bytes)
        except Unavailable:
            self._counters.add(misses=1, failures=1)
            return None
        if found is None or not self._is_fresh(found[1]):
            self._counters.add(misses=1)
            return None
        self._counters.add(hits=1)
        self._touch(key)
        return found[0]

    async def put(self, key: CacheKey, completion: Completion) -> None:
        """Keep `completion` under `key`, if it is whole and the file can be written.

        A checkpoint. Cancelled, it has kept the answer or has not.
        """
        try:
            answer = encode_answer(completion)
        except BadAnswer:
            answer = None
        if answer is None or not is_whole(completion) or row_size(answer) > self._max_bytes:
            self._counters.add(refused=1)
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
            self._counters.add(failures=1)
            return
        self._counters.add(stored=1, evictions=done.evicted, expirations=done.expired)
        self._counters.holds(entries=done.entries, size=done.bytes)

    def statistics(self) -> CacheStatistics:
        """Return the counters of this process. `entries` and `bytes` date from its last write, or opening."""
        return self._counters.read()

    def flush(self, connection: sqlite3.Connection) -> None:
        """Write to the file which answers were used. Blocks."""
        touched = self._take_touched()
        if touched:
            self._table.touch(connection, touched)

    def _is_fresh(self, written: float) -> bool:
        # An answer from the future was written by a clock that was wrong. It is not good until then.
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


class SqliteCache:
    """Keeps answers in the SQLite file at `path`, created where absent, readable by its owner only.

    Making the store opens the file, which blocks for some milliseconds; nothing after that blocks. A file
    that cannot be opened, read or written (no such directory, read-only, disk full) is not used for 30
    seconds after each warning, and then tried again::

        async with MultiLLMOrchestrator(cache=SqliteCache("answers.db", ttl=86400)) as orchestrator:
            ...

    Args:
        path: the file. SQLite puts two more beside it, whose names end in ``-wal`` and ``-shm``.
        max_bytes: how much the answers of one model take up at most; the least recently used go first. The
            file grows a little beyond that for each model.
        ttl: seconds for which an answer is good; None: for ever. They are seconds of the wall clock, since
            trio's clock starts from another number in each process.
        busy_timeout: seconds to wait while another process writes.
        now: the wall clock.

    Raises:
        BadCall: an argument is out of its range.
        ConfigError: the file is no cache of Ultra's, or one of a newer version. It is left as it is.
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
        check_path(self._path)
        check_count("max_bytes", max_bytes)
        check_seconds("busy_timeout", busy_timeout, positive=True)
        check_seconds("ttl", ttl, positive=True, optional=True)
        self._max_bytes = max_bytes
        self._ttl = ttl
        self._now = now
        self._writer = _FileConnection("write", self._path, busy_timeout)
        self._reader = _FileConnection("read", self._path, busy_timeout)
        self._shards: dict[str, SqliteShard] = {}
        self._lock = threading.Lock()
        self._opened_with = self._open()

    @property
    def secret(self) -> bytes:
        """32 random bytes that are kept in the file; if it cannot be opened, new ones for this store."""
        return self._opened_with.secret

    def shard(self, name: str) -> SqliteShard:
        """Return the shard of the model `name`, the same one each time."""
        with self._lock:
            shard = self._shards.get(name)
            if shard is None:
                table = ShardTable(name)
                entries, size = self._opened_with.sizes.get(table.name, (0, 0))
                shard = self._shards[name] = SqliteShard(
                    table,
                    self._reader,
                    self._writer,
                    max_bytes=self._max_bytes,
                    ttl=self._ttl,
                    now=self._now,
                    counters=ShardCounters(entries=entries, size=size),
                )
            return shard

    async def aclose(self) -> None:
        """Close the file; a later use opens it again. A checkpoint; cancelled, it closes the file first."""
        with trio.CancelScope(shield=True):  # it takes little time
            # A limiter of its own, since all of the program's worker threads may be busy for long.
            try:
                await trio.to_thread.run_sync(self._close, limiter=trio.CapacityLimiter(1))
            except RuntimeError:  # no thread can be started
                self._close()
        await trio.lowlevel.checkpoint_if_cancelled()

    def _open(self) -> FileContents:
        for connection in (self._writer, self._reader):  # a file that cannot be written may still be read
            try:
                return connection.run_sync(read_contents)
            except ConfigError:
                raise
            except Exception as error:  # noqa: BLE001 - as in `_FileConnection.run`
                connection.outage.warn(error)
        return FileContents(secrets.token_bytes(SECRET_BYTES), {})

    def _close(self) -> None:
        for shard in list(self._shards.values()):
            try:
                self._writer.run_sync(shard.flush)
            except Exception:  # noqa: BLE001 - which answers were used last may be lost
                break
        self._writer.close()
        self._reader.close()


def check_path(path: str) -> None:
    """Raise `BadCall` if this is the path of no file."""
    if path in {"", ":memory:"} or "\0" in path:
        raise BadCall(f"path is {path!r}; it must be the path of a file")
