"""The notices in the file of the SQLite journal: blocking work, for worker threads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ultra.stores.checksums import checksum
from ultra.stores.delivery_contract import DELIVERY_ORPHANED, Delivery
from ultra.stores.journal_damage import intact_delivery, log_damage
from ultra.stores.journal_encoding import Damaged

if TYPE_CHECKING:
    import sqlite3

__all__ = ["add_delivery", "create_deliveries", "is_any_due", "settle_delivery", "take_deliveries"]


def create_deliveries(connection: sqlite3.Connection) -> None:
    """Make the table, unless a file of an earlier version has got it since."""
    connection.execute(
        "CREATE TABLE IF NOT EXISTS deliveries (id TEXT PRIMARY KEY, run_id TEXT NOT NULL, url TEXT NOT NULL,"
        " attempts INTEGER NOT NULL DEFAULT 0, added REAL NOT NULL, due REAL NOT NULL,"
        " sum INTEGER) WITHOUT ROWID"
    )


def add_delivery(connection: sqlite3.Connection, delivery: Delivery, now: float) -> None:
    """Keep a notice."""
    create_deliveries(connection)
    connection.execute(
        "INSERT INTO deliveries (id, run_id, url, attempts, added, due, sum) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (delivery.id, delivery.run_id, delivery.url, delivery.attempts, now, now, _sum_of(delivery)),
    )


def is_any_due(connection: sqlite3.Connection, now: float) -> bool:
    """Return whether `take_deliveries` may have something to do."""
    (known,) = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'deliveries'").fetchone()
    if not known:
        return False
    return (
        connection.execute("SELECT 1 FROM deliveries WHERE due <= ? LIMIT 1", (now,)).fetchone() is not None
    )


def take_deliveries(connection: sqlite3.Connection, limit: int, now: float, hold: float) -> list[Delivery]:
    """Return notices that are due and whose run has ended, which nobody else gets for `hold` seconds.

    One that is damaged is dropped: nobody knows where it should go.
    """
    connection.execute(
        "DELETE FROM deliveries WHERE added < ? AND run_id NOT IN (SELECT run_id FROM runs)",
        (now - DELIVERY_ORPHANED,),
    )
    rows = connection.execute(
        "SELECT deliveries.id, deliveries.run_id, url, attempts, deliveries.sum FROM deliveries"
        " JOIN runs USING (run_id) WHERE due <= ? AND ended IS NOT NULL ORDER BY due LIMIT ?",
        (now, limit),
    ).fetchall()
    connection.executemany(
        "UPDATE deliveries SET due = ? WHERE id = ?", [(now + hold, row[0]) for row in rows]
    )
    taken = []
    for row in rows:
        try:
            taken.append(intact_delivery(*row))
        except Damaged as error:
            log_damage("webhook", str(row[0]), error)
            connection.execute("DELETE FROM deliveries WHERE id = ?", (row[0],))
    return taken


def _sum_of(delivery: Delivery) -> int:
    return checksum(delivery.id.encode(), delivery.run_id.encode(), delivery.url.encode())


def settle_delivery(connection: sqlite3.Connection, delivery_id: str, due: float | None) -> None:
    """Drop a notice, or note that it failed, and from when on it is due again."""
    if due is None:
        connection.execute("DELETE FROM deliveries WHERE id = ?", (delivery_id,))
        return
    connection.execute(
        "UPDATE deliveries SET attempts = attempts + 1, due = ? WHERE id = ?", (due, delivery_id)
    )
