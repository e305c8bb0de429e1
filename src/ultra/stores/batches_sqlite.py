"""The batches in the file of the SQLite journal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec
from msgspec.structs import replace

from ultra.stores.batch_contract import BATCH_KEPT, Batch

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Mapping

__all__ = ["SqliteBatches"]

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Batch).decode


class _Does(Protocol):
    """Does blocking work on the file: as a part of a transaction, or reading."""

    async def __call__(self, work: Callable[..., Any], *args: Any) -> Any:  # noqa: ANN401 - of any work
        """Call ``work(connection, *args)`` in a thread, and return its result."""
        ...


class SqliteBatches:
    """A `BatchStore` in a file. `write` and `read` are those of its journal."""

    def __init__(self, write: _Does, read: _Does, now: Callable[[], float]) -> None:
        self._write = write
        self._read = read
        self._now = now

    async def add(self, batch: Batch, lines: bytes) -> Batch:
        """Accept a batch."""
        added: Batch = await self._write(_add, replace(batch, created=self._now()), lines)
        return added

    async def get(self, batch_id: str) -> Batch | None:
        """Return a batch."""
        found: Batch | None = await self._read(_get, batch_id)
        return found

    async def lines(self, batch_id: str) -> bytes:
        """Return what its runs are to do."""
        found: bytes = await self._read(_lines, batch_id)
        return found

    async def hold(self, holder: str, seconds: float) -> list[Batch]:
        """Give `holder` the batches that nobody else holds."""
        if not await self._read(_has_work, self._now()):
            return []
        held: list[Batch] = await self._write(_hold, holder, self._now(), seconds)
        return held

    async def update(self, batch_id: str, changes: Mapping[str, Any]) -> Batch | None:
        """Change fields of a batch."""
        changed: Batch | None = await self._write(_update, batch_id, changes)
        return changed


def _create(connection: sqlite3.Connection) -> None:
    connection.execute(
        "CREATE TABLE IF NOT EXISTS batches (id TEXT PRIMARY KEY, batch BLOB NOT NULL, lines BLOB NOT NULL,"
        " ended REAL, holder TEXT, held_until REAL NOT NULL DEFAULT 0)"
    )


def _is_there(connection: sqlite3.Connection) -> bool:
    query = "SELECT 1 FROM sqlite_master WHERE name = 'batches'"
    return connection.execute(query).fetchone() is not None


def _add(connection: sqlite3.Connection, batch: Batch, lines: bytes) -> Batch:
    _create(connection)
    found = _get(connection, batch.id)
    if found is not None:
        return found
    row = (batch.id, _encode(batch), lines)
    connection.execute("INSERT INTO batches (id, batch, lines) VALUES (?, ?, ?)", row)
    return batch


def _get(connection: sqlite3.Connection, batch_id: str) -> Batch | None:
    if not _is_there(connection):
        return None
    row = connection.execute("SELECT batch FROM batches WHERE id = ?", (batch_id,)).fetchone()
    return None if row is None else _decode(row[0])


def _lines(connection: sqlite3.Connection, batch_id: str) -> bytes:
    if not _is_there(connection):
        return b""
    row = connection.execute("SELECT lines FROM batches WHERE id = ?", (batch_id,)).fetchone()
    return b"" if row is None else bytes(row[0])


def _has_work(connection: sqlite3.Connection, now: float) -> bool:
    """Return whether a batch is open, or has been kept for long enough; only then is there a transaction."""
    if not _is_there(connection):
        return False
    query = "SELECT 1 FROM batches WHERE ended IS NULL OR ended < ? LIMIT 1"
    return connection.execute(query, (now - BATCH_KEPT,)).fetchone() is not None


def _hold(connection: sqlite3.Connection, holder: str, now: float, seconds: float) -> list[Batch]:
    connection.execute("DELETE FROM batches WHERE ended < ?", (now - BATCH_KEPT,))
    rows = connection.execute(
        "UPDATE batches SET holder = ?, held_until = ? WHERE ended IS NULL"
        " AND (holder IS NULL OR holder = ? OR held_until <= ?) RETURNING batch",
        (holder, now + seconds, holder, now),
    )
    return [_decode(batch) for (batch,) in rows.fetchall()]


def _update(connection: sqlite3.Connection, batch_id: str, changes: Mapping[str, Any]) -> Batch | None:
    found = _get(connection, batch_id)
    if found is None:
        return None
    changed = replace(found, **changes)
    row = (_encode(changed), changed.ended, batch_id)
    connection.execute("UPDATE batches SET batch = ?, ended = ? WHERE id = ?", row)
    return changed
