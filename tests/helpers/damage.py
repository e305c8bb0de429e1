"""Wrong bits in what a store keeps, in a file or on a Redis server."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Damage", "FileDamage", "RedisDamage"]


class Damage(Protocol):
    """Changes what is kept, as a fault of a disk would: `old` becomes `new` wherever it stands."""

    async def events(self, run_id: str, old: bytes, new: bytes) -> None:
        """In the events of a run."""

    async def answers(self, run_id: str, old: bytes, new: bytes) -> None:
        """In its paid answers."""

    async def spec(self, run_id: str, old: bytes, new: bytes) -> None:
        """In what it is to do."""

    async def batch(self, batch_id: str, old: bytes, new: bytes) -> None:
        """In the fields of a batch."""

    async def lines(self, batch_id: str, old: bytes, new: bytes) -> None:
        """In what its runs are to do."""

    async def notice(self, name: str, old: str, new: str) -> None:
        """In the address of a notice."""


class FileDamage:
    """The damage of a SQLite file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def _change(self, table: str, column: str, where: str, name: str, old: Any, new: Any) -> None:
        with closing(sqlite3.connect(self._path)) as file, file:
            found = file.execute(f"SELECT {column} FROM {table} WHERE {where}", (name,)).fetchall()
            assert any(old in value for (value,) in found)
            for (value,) in found:
                file.execute(
                    f"UPDATE {table} SET {column} = ? WHERE {where} AND {column} = ?",
                    (value.replace(old, new), name, value),
                )

    async def events(self, run_id: str, old: bytes, new: bytes) -> None:
        run = "run = (SELECT number FROM runs WHERE run_id = ?)"
        self._change("events", "event", run, run_id, old, new)

    async def answers(self, run_id: str, old: bytes, new: bytes) -> None:
        run = "run = (SELECT number FROM runs WHERE run_id = ?)"
        self._change("answers", "answer", run, run_id, old, new)

    async def spec(self, run_id: str, old: bytes, new: bytes) -> None:
        self._change("runs", "spec", "run_id = ?", run_id, old, new)

    async def batch(self, batch_id: str, old: bytes, new: bytes) -> None:
        with closing(sqlite3.connect(self._path)) as file, file:
            file.execute("DROP TRIGGER batches_changed")  # no fault of a disk runs it
        self._change("batches", "batch", "id = ?", batch_id, old, new)

    async def lines(self, batch_id: str, old: bytes, new: bytes) -> None:
        self._change("batches", "lines", "id = ?", batch_id, old, new)

    async def notice(self, name: str, old: str, new: str) -> None:
        self._change("deliveries", "url", "id = ?", name, old, new)


class RedisDamage:
    """The damage on a Redis server, of which the journal is one."""

    def __init__(self, journal: Any) -> None:
        self._use = journal._server.use
        self._prefix = journal._prefix

    async def _hash(self, key: str, old: bytes, new: bytes) -> None:
        async def change(client: Any) -> None:
            found = await client.hgetall(self._prefix + key)
            assert any(old in value for value in found.values())
            await client.hset(
                self._prefix + key, {name: value.replace(old, new) for name, value in found.items()}
            )

        await self._use(change)

    async def events(self, run_id: str, old: bytes, new: bytes) -> None:
        key = f"{self._prefix}events:{run_id}"

        async def change(client: Any) -> None:
            entries = await client.xrange(key)
            assert any(old in value for entry in entries for value in entry.field_values.values())
            await client.delete([key])
            for entry in entries:
                fields = {name: value.replace(old, new) for name, value in entry.field_values.items()}
                await client.xadd(key, fields, identifier=entry.identifier)

        await self._use(change)

    async def answers(self, run_id: str, old: bytes, new: bytes) -> None:
        await self._hash(f"answers:{run_id}", old, new)

    async def spec(self, run_id: str, old: bytes, new: bytes) -> None:
        await self._hash(f"run:{run_id}", old, new)

    async def batch(self, batch_id: str, old: bytes, new: bytes) -> None:
        await self._hash(f"batch:{batch_id}", old, new)

    async def lines(self, batch_id: str, old: bytes, new: bytes) -> None:
        key = f"{self._prefix}lines:{batch_id}"

        async def change(client: Any) -> None:
            await client.set(key, (await client.get(key)).replace(old, new))

        await self._use(change)

    async def notice(self, name: str, old: str, new: str) -> None:
        await self._hash(f"notice:{name}", old.encode(), new.encode())
