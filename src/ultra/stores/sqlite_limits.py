"""Limits in a SQLite file, which the processes of one machine share, and which outlives them."""

from __future__ import annotations

import sqlite3
import time
from typing import TYPE_CHECKING, Final, TypeVar

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar
from msgspec import structs

from ultra._support.forking import ClosedForFork
from ultra.errors import BadCall, ConfigError
from ultra.stores import limit_rules as rules
from ultra.stores.contracts import LimitsUnavailable
from ultra.stores.limit_rules import LimitRow
from ultra.stores.sqlite_connection import FileFormat, connect, transaction

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from ultra.stores.contracts import Decision, Want

__all__ = ["SqliteLimits", "check_path"]

T = TypeVar("T")

_WAITING: Final = 8
"""Threads of one store at most; one works and the others wait for it."""

_TABLES: Final = (
    """CREATE TABLE limits (name TEXT PRIMARY KEY, level REAL NOT NULL, held REAL NOT NULL,
    at REAL NOT NULL, until REAL NOT NULL) WITHOUT ROWID""",
    "CREATE INDEX limits_until ON limits (until)",
    "CREATE TABLE grants (name TEXT PRIMARY KEY, wants BLOB NOT NULL, ends REAL NOT NULL) WITHOUT ROWID",
    "CREATE INDEX grants_ends ON grants (ends)",
)


def _create_tables(connection: sqlite3.Connection) -> None:
    for statement in _TABLES:
        connection.execute(statement)


LIMITS_FILE: Final = FileFormat("limits", int.from_bytes(b"UltL"), 1, _create_tables)
"""The format of the file of limits."""


class SqliteLimits(ClosedForFork):
    """Keeps limits in the SQLite file at `path`, created where absent, readable by its owner only.

    Making it opens the file, which blocks for some milliseconds; the rest is done in worker threads. A power
    cut may lose the last second, and a process that is killed loses nothing.

    Args:
        path: the file. SQLite puts two more beside it, whose names end in ``-wal`` and ``-shm``.
        busy_timeout: seconds to wait while another process writes.
        now: the wall clock, which all processes that share the file should agree on.

    Raises:
        ConfigError: the file cannot be opened or made, or is none of limits.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        busy_timeout: float = 5.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__()
        self._path = str(path)
        check_path(self._path)
        self._busy_timeout = busy_timeout
        self._now = now
        self._connection: sqlite3.Connection | None = None
        self._limiters: RunVar[anyio.CapacityLimiter] = RunVar(f"limits {self._path}")
        try:
            self._run(lambda _: None)
        except (sqlite3.Error, OSError) as error:
            raise ConfigError(f"the file of limits {self._path!r} cannot be used: {error}") from None

    async def take(self, wants: Sequence[Want]) -> Decision:
        """See `SharedLimits.take`."""
        return await self._in_thread(lambda table: rules.take(table, wants, self._now()))

    async def settle(self, grant: str, used: Mapping[str, float]) -> None:
        """See `SharedLimits.settle`."""
        await self._in_thread(lambda table: rules.settle(table, grant, used, self._now()))

    async def renew(self, grants: Sequence[str]) -> None:
        """See `SharedLimits.renew`."""
        await self._in_thread(lambda table: rules.renew(table, grants, self._now()))

    async def aclose(self) -> None:
        """Close the file; a later use opens it again."""
        with self._lock:
            self._close()

    async def _in_thread(self, work: Callable[[_Table], T]) -> T:
        try:
            return await anyio.to_thread.run_sync(self._run, work, limiter=self._limiter())
        except (sqlite3.Error, OSError) as error:
            raise LimitsUnavailable(f"{self._path}: {error}") from error

    def _limiter(self) -> anyio.CapacityLimiter:
        # One for each event loop: an application may be served by several in turn.
        try:
            return self._limiters.get()
        except LookupError:
            limiter = anyio.CapacityLimiter(_WAITING)
            self._limiters.set(limiter)
            return limiter

    def _run(self, work: Callable[[_Table], T]) -> T:
        with self._lock:
            if self._connection is None:
                self._connection = connect(
                    self._path, LIMITS_FILE, busy_timeout=self._busy_timeout, writing=True
                )
            try:
                with transaction(self._connection):
                    return work(_Table(self._connection))
            except (sqlite3.Error, OSError):
                self._close()
                raise

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def check_path(path: str) -> None:
    """Raise `BadCall` if this cannot be the path of a file."""
    if not path or path == ":memory:" or "\0" in path:
        raise BadCall(f"the file of limits is {path!r}; give its path, such as sqlite:///limits.db")


class _Table:
    """The rules' view of the file, within one transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._do = connection.execute

    def row(self, name: str) -> LimitRow | None:
        found = self._do("SELECT level, held, at, until FROM limits WHERE name = ?", (name,)).fetchone()
        return None if found is None else LimitRow(*found)

    def set_row(self, name: str, row: LimitRow) -> None:
        self._do("INSERT OR REPLACE INTO limits VALUES (?, ?, ?, ?, ?)", (name, *structs.astuple(row)))

    def drop_rows(self, now: float) -> None:
        self._do("DELETE FROM limits WHERE until <= ? AND held = 0", (now,))

    def add_grant(self, grant: str, wants: Sequence[Want], ends: float) -> None:
        self._do("INSERT INTO grants VALUES (?, ?, ?)", (grant, rules.encode_wants(wants), ends))

    def end_grant(self, grant: str) -> Iterable[Want] | None:
        found = self._do("DELETE FROM grants WHERE name = ? RETURNING wants", (grant,)).fetchone()
        return None if found is None else rules.decode_wants(found[0])

    def extend_grant(self, grant: str, ends: float) -> None:
        self._do("UPDATE grants SET ends = ? WHERE name = ?", (ends, grant))

    def ended_grants(self, now: float) -> Iterable[str]:
        return [name for (name,) in self._do("SELECT name FROM grants WHERE ends <= ?", (now,)).fetchall()]
