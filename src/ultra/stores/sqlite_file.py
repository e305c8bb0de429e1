"""The file of the SQLite store: its format, and the blocking work on it, for worker threads.

Each change is one transaction on a write-ahead log, so a process that is killed leaves the whole change or
nothing of it. Triggers count in the same transaction what a shard holds, so the counts are right with any
number of processes that write.
"""

from __future__ import annotations

import secrets
import sqlite3
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from ultra.stores.contracts import SECRET_BYTES
from ultra.stores.encoding import BadAnswer, decode_answer
from ultra.stores.sqlite_connection import FileFormat, refuse_newer_format, transaction

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ultra.messages.results import Completion
    from ultra.stores.contracts import CacheKey

__all__ = ["CACHE_FILE", "FileContents", "ShardTable", "WriteOutcome", "read_contents", "row_size"]

APPLICATION_ID: Final = int.from_bytes(b"Ultr")
FORMAT: Final = 1

_ROW_OVERHEAD: Final = 160
"""Bytes beside an answer: its key twice, two more entries of indexes, and the header of the row."""

_MOST_EXPIRED: Final = 16
"""How many expired answers one write deletes, so that no write takes the time of deleting them all."""


class WriteOutcome(Struct, frozen=True):
    """What one write has removed from a shard, and what the shard holds after it."""

    evicted: int
    expired: int
    entries: int
    bytes: int


class FileContents(Struct, frozen=True):
    """What is in the file when it is opened. `sizes`: how many answers and bytes each shard's table has."""

    secret: bytes
    sizes: dict[str, tuple[int, int]]

    def __repr__(self) -> str:
        return f"FileContents(sizes={self.sizes!r})"  # no secret in logs

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """Return what may be shown."""
        return [("sizes", self.sizes)]


def row_size(answer: bytes) -> int:
    """Return about how many bytes an encoded answer takes up in the file."""
    return len(answer) + _ROW_OVERHEAD


def read_contents(connection: sqlite3.Connection) -> FileContents:
    """Return what is in the file.

    Raises:
        sqlite3.Error: the file cannot be read, or has no secret of 32 bytes.
    """
    row = connection.execute("SELECT secret FROM store").fetchone()
    secret = None if row is None else row[0]
    if not isinstance(secret, bytes) or len(secret) != SECRET_BYTES:
        raise sqlite3.DatabaseError(f"the file has no secret of {SECRET_BYTES} bytes")
    rows = connection.execute("SELECT shard, entries, bytes FROM shards")
    sizes = {table: (entries, size) for table, entries, size in rows if type(entries) is type(size) is int}
    return FileContents(secret, sizes)


def _create_tables(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE store (secret BLOB NOT NULL)")
    connection.execute(
        "CREATE TABLE shards (shard TEXT PRIMARY KEY, model TEXT NOT NULL,"
        " entries INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0)"
    )
    connection.execute("INSERT INTO store VALUES (?)", (secrets.token_bytes(SECRET_BYTES),))


CACHE_FILE: Final = FileFormat("cache", APPLICATION_ID, FORMAT, _create_tables)
"""The format of the file of a cache."""


class ShardTable:
    """The table of one model. Its name is a digest, since names of models may hold any characters."""

    def __init__(self, model_name: str) -> None:
        self._model = model_name.encode("utf-8", "backslashreplace").decode()  # for people to read
        digest = blake2b(model_name.encode("utf-8", "surrogatepass"), digest_size=16)
        table = self.name = f"answers_{digest.hexdigest()}"
        self._select = f"SELECT answer, written FROM {table} WHERE key = ? AND length(answer) <= ?"  # noqa: S608 - a digest
        self._touch = f"UPDATE {table} SET used = ? WHERE key = ?"  # noqa: S608 - as above
        self._insert = f"INSERT INTO {table} (key, answer, written, used) VALUES (?, ?, ?, ?)"  # noqa: S608
        self._delete = f"DELETE FROM {table} WHERE key = ?"  # noqa: S608
        self._last_used = f"SELECT coalesce(max(used), 0) FROM {table}"  # noqa: S608
        self._by_use = f"SELECT key, length(answer) + {_ROW_OVERHEAD} FROM {table} ORDER BY used"  # noqa: S608
        self._by_age = f"SELECT key FROM {table} WHERE written <= ? ORDER BY written LIMIT {_MOST_EXPIRED}"  # noqa: S608

    def read(
        self, connection: sqlite3.Connection, key: CacheKey, *, max_bytes: int
    ) -> tuple[Completion, float] | None:
        """Return the answer under `key`, and when it was written; None if there is none up to this size.

        Raises:
            sqlite3.Error: the file cannot be read.
            BadAnswer: what is under `key` is no answer.
        """
        if not self._exists(connection):
            return None
        row = connection.execute(self._select, (key, max_bytes)).fetchone()
        if row is None:
            return None
        answer, written = row
        if not isinstance(written, float | int):
            raise BadAnswer("what is kept has no time of writing")
        return decode_answer(answer), written

    def touch(self, connection: sqlite3.Connection, keys: Iterable[CacheKey]) -> None:
        """Write that the answers under `keys` were used last, in this order."""
        with transaction(connection):
            if self._exists(connection):
                self._note_use(connection, keys)

    def write(
        self,
        connection: sqlite3.Connection,
        key: CacheKey,
        answer: bytes,
        *,
        written: float,
        touched: Iterable[CacheKey],
        max_bytes: int,
        ttl: float | None,
    ) -> WriteOutcome:
        """Keep an encoded answer, which fits into `max_bytes`; delete the least recently used to make room.

        Raises:
            ConfigError: a newer version of Ultra has taken the file over.
            sqlite3.Error: the file cannot be written, and is as it was.
        """
        with transaction(connection):
            refuse_newer_format(connection, CACHE_FILE)
            if not self._exists(connection):
                self._create(connection)
            used = self._note_use(connection, touched)
            expired = (
                0 if ttl is None else self._delete_all(connection, self._expired(connection, written - ttl))
            )
            connection.execute(self._delete, (key,))
            connection.execute(self._insert, (key, answer, written, used + 1))
            evicted = self._delete_all(connection, self._excess(connection, max_bytes))
            entries, size = self._size(connection)
        return WriteOutcome(evicted=evicted, expired=expired, entries=entries, bytes=size)

    def _exists(self, connection: sqlite3.Connection) -> bool:
        query = "SELECT 1 FROM shards WHERE shard = ?"
        return connection.execute(query, (self.name,)).fetchone() is not None

    def _size(self, connection: sqlite3.Connection) -> tuple[int, int]:
        query = "SELECT entries, bytes FROM shards WHERE shard = ?"
        entries, size = connection.execute(query, (self.name,)).fetchone()
        return entries, size

    def _create(self, connection: sqlite3.Connection) -> None:
        table = self.name
        connection.execute("INSERT INTO shards (shard, model) VALUES (?, ?)", (table, self._model))
        connection.execute(
            f"CREATE TABLE {table} (key BLOB PRIMARY KEY, answer BLOB NOT NULL,"
            " written REAL NOT NULL, used INTEGER NOT NULL)"
        )
        for column in ("used", "written"):
            connection.execute(f"CREATE INDEX {table}_{column} ON {table} ({column})")
        for event, row, sign in (("INSERT", "NEW", "+"), ("DELETE", "OLD", "-")):
            size = f"length({row}.answer) + {_ROW_OVERHEAD}"
            connection.execute(
                f"CREATE TRIGGER {table}_{event} AFTER {event} ON {table} BEGIN UPDATE shards"  # noqa: S608
                f" SET entries = entries {sign} 1, bytes = bytes {sign} ({size})"
                f" WHERE shard = '{table}'; END"
            )

    def _note_use(self, connection: sqlite3.Connection, keys: Iterable[CacheKey]) -> int:
        """Number the uses of `keys`, beginning after the last use, and return the last number."""
        (used,) = connection.execute(self._last_used).fetchone()
        for key in keys:
            used += 1
            connection.execute(self._touch, (used, key))
        return int(used)

    def _expired(self, connection: sqlite3.Connection, written: float) -> list[CacheKey]:
        return [key for (key,) in connection.execute(self._by_age, (written,))]

    def _excess(self, connection: sqlite3.Connection, max_bytes: int) -> list[CacheKey]:
        _, size = self._size(connection)
        keys: list[CacheKey] = []
        if size <= max_bytes:
            return keys
        for key, row in connection.execute(self._by_use):
            keys.append(key)
            size -= row
            if size <= max_bytes:
                break
        return keys

    def _delete_all(self, connection: sqlite3.Connection, keys: list[CacheKey]) -> int:
        connection.executemany(self._delete, [(key,) for key in keys])
        return len(keys)
