"""The batches in the file of the SQLite journal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec
from msgspec.structs import replace

from ultra.stores.batch_contract import BATCH_KEPT, Batch
from ultra.stores.checksums import checksum
from ultra.stores.journal_contract import latest_end
from ultra.stores.journal_damage import check_sum, log_damage
from ultra.stores.journal_encoding import Damaged
from ultra.stores.sqlite_connection import lacks_column

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Mapping

__all__ = ["SqliteBatches", "lacking_columns_of_batches", "lacking_in_batches"]

_encode: Final = msgspec.msgpack.Encoder().encode
_decoder: Final = msgspec.msgpack.Decoder(Batch)

# An earlier version changes a batch and leaves the checksum as it is.
_CHANGED_ELSEWHERE: Final = (
    "CREATE TRIGGER IF NOT EXISTS batches_changed AFTER UPDATE OF batch ON batches WHEN new.sum IS old.sum"
    " BEGIN UPDATE batches SET sum = NULL WHERE id = new.id; END"
)


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


def lacking_in_batches(connection: sqlite3.Connection) -> list[str]:
    """Return what makes the table of an earlier version as this one's; see `FileFormat`."""
    if not lacks_column(connection, "batches", "sum"):
        return []
    added = [f"ALTER TABLE batches ADD COLUMN {name} INTEGER" for name in ("sum", "lines_sum")]
    return [*added, _CHANGED_ELSEWHERE]


def lacking_columns_of_batches(connection: sqlite3.Connection) -> dict[str, str]:
    """Return, by its name, what a view of the table of an earlier version has to add to it."""
    lacks = lacks_column(connection, "batches", "sum")
    return {"batches": "NULL AS sum, NULL AS lines_sum"} if lacks else {}


def _create(connection: sqlite3.Connection) -> None:
    connection.execute(
        "CREATE TABLE IF NOT EXISTS batches (id TEXT PRIMARY KEY, batch BLOB NOT NULL, lines BLOB NOT NULL,"
        " ended REAL, holder TEXT, held_until REAL NOT NULL DEFAULT 0, sum INTEGER, lines_sum INTEGER)"
    )
    connection.execute(_CHANGED_ELSEWHERE)


def _decode(encoded: bytes, known: object) -> Batch:
    """Return the batch with this checksum. Raises `Damaged`."""
    try:
        found = _decoder.decode(encoded)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:  # it may not even be bytes
        raise Damaged(str(error)) from error
    check_sum("the batch", known, encoded)
    return found


def _is_there(connection: sqlite3.Connection) -> bool:
    query = "SELECT 1 FROM sqlite_master WHERE name = 'batches'"
    return connection.execute(query).fetchone() is not None


def _add(connection: sqlite3.Connection, batch: Batch, lines: bytes) -> Batch:
    _create(connection)
    found = _get(connection, batch.id)
    if found is not None:
        return found
    encoded = _encode(batch)
    row = (batch.id, encoded, lines, checksum(encoded), checksum(lines))
    connection.execute("INSERT INTO batches (id, batch, lines, sum, lines_sum) VALUES (?, ?, ?, ?, ?)", row)
    return batch


def _get(connection: sqlite3.Connection, batch_id: str) -> Batch | None:
    if not _is_there(connection):
        return None
    row = connection.execute("SELECT batch, sum FROM batches WHERE id = ?", (batch_id,)).fetchone()
    return None if row is None else _decode(*row)


def _lines(connection: sqlite3.Connection, batch_id: str) -> bytes:
    if not _is_there(connection):
        return b""
    row = connection.execute("SELECT lines, lines_sum FROM batches WHERE id = ?", (batch_id,)).fetchone()
    if row is None:
        return b""
    lines, known = row
    if not isinstance(lines, bytes):
        raise Damaged(f"the lines of the batch are of type {type(lines).__name__}")
    check_sum("what the batch is to do", known, lines)
    return lines


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
        " AND (holder IS NULL OR holder = ? OR held_until <= ? OR held_until > ?) RETURNING id, batch, sum",
        (holder, now + seconds, holder, now, latest_end(now, seconds)),
    )
    held = []
    for name, batch, known in rows.fetchall():
        try:
            held.append(_decode(batch, known))
        except Damaged as error:
            log_damage("batch", str(name), error)
            connection.execute("UPDATE batches SET ended = ?, holder = NULL WHERE id = ?", (now, name))
    return held


def _update(connection: sqlite3.Connection, batch_id: str, changes: Mapping[str, Any]) -> Batch | None:
    found = _get(connection, batch_id)
    if found is None:
        return None
    changed = replace(found, **changes)
    encoded = _encode(changed)
    row = (encoded, checksum(encoded), changed.ended, batch_id)
    connection.execute("UPDATE batches SET batch = ?, sum = ?, ended = ? WHERE id = ?", row)
    return changed
