"""The file of the SQLite journal: its tables, and the blocking work on it, for worker threads.

What changes the file is called within a transaction, many of them within one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace

from ultra.stores.batches_sqlite import lacking_columns_of_batches, lacking_in_batches
from ultra.stores.checksums import checksum
from ultra.stores.journal_contract import (
    ENDED,
    LIST_BYTES,
    PAGE_BYTES,
    STATES,
    Claim,
    Ending,
    Lease,
    LeaseLost,
    Renewal,
    RunRecord,
    RunState,
    latest_end,
)
from ultra.stores.journal_damage import (
    check_sum,
    damaged_end,
    intact_event,
    listed,
    rest_of,
    sound_answer,
)
from ultra.stores.journal_encoding import (
    Damaged,
    decode_spec,
    decode_tags,
    encode_event,
    encode_spec,
    encode_tags,
)
from ultra.stores.journal_sqlite_deliveries import create_deliveries
from ultra.stores.sqlite_connection import FileFormat, lacks_column

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping, Sequence

    from ultra.messages.events import Event
    from ultra.messages.results import ModelResponse
    from ultra.stores.journal_contract import AnswerKey, Retention

__all__ = [
    "JOURNAL_FILE",
    "add_run",
    "append_events",
    "cancel_run",
    "claim_runs",
    "delete_run",
    "excess_bytes",
    "list_runs",
    "prune_runs",
    "put_answer",
    "read_answer",
    "read_answer_keys",
    "read_events",
    "read_run",
    "record_run",
    "release_leases",
    "renew_leases",
]

_COLUMNS: Final = (
    "run_id, spec, owner, idempotency_key, tags, state, created, ended, code, message, events, bytes, "
    "leases, cancelling, sum"
)
_TEXT_OR_NULL: Final = (str, type(None))
_TIME_OR_NULL: Final = (float, type(None))
_KINDS: Final[tuple[Any, ...]] = (
    *(str, bytes, _TEXT_OR_NULL, _TEXT_OR_NULL, bytes, str, float, _TIME_OR_NULL),
    *(_TEXT_OR_NULL, _TEXT_OR_NULL, int, int, int, int, (int, type(None))),
)
"""The types of the columns: SQLite takes any, and the file may be damaged."""

_MOST_PRUNED: Final = 100
_MOST_FREED: Final = 64 * 2**20
"""Runs, and bytes, that one transaction removes, so that others need not wait long for it."""

_OPEN: Final = "state IN ('queued', 'running')"


_SUMMED: Final = ("runs", "events", "answers", "deliveries")
"""The tables whose rows have a checksum. Rows that an earlier version has written have none."""


def _create_tables(connection: sqlite3.Connection) -> None:
    connection.execute(
        "CREATE TABLE runs (number INTEGER PRIMARY KEY AUTOINCREMENT, run_id TEXT NOT NULL UNIQUE,"
        " spec BLOB NOT NULL, owner TEXT, idempotency_key TEXT, tags BLOB NOT NULL, state TEXT NOT NULL,"
        " created REAL NOT NULL, ended REAL, code TEXT, message TEXT, events INTEGER NOT NULL DEFAULT 0,"
        " bytes INTEGER NOT NULL DEFAULT 0, cancelling INTEGER NOT NULL DEFAULT 0, holder TEXT,"
        " leases INTEGER NOT NULL DEFAULT 0, held_until REAL NOT NULL DEFAULT 0, sum INTEGER)"
    )
    connection.execute(
        "CREATE UNIQUE INDEX runs_key ON runs (coalesce(owner, ''), owner IS NULL, idempotency_key)"
        " WHERE idempotency_key IS NOT NULL"
    )
    connection.execute(f"CREATE INDEX runs_open ON runs (number) WHERE {_OPEN}")
    connection.execute("CREATE INDEX runs_ended ON runs (ended) WHERE ended IS NOT NULL")
    connection.execute("CREATE INDEX runs_owner ON runs (owner, number)")
    connection.execute(
        "CREATE TABLE events (run INTEGER NOT NULL, seq INTEGER NOT NULL, event BLOB NOT NULL,"
        " sum INTEGER, PRIMARY KEY (run, seq)) WITHOUT ROWID"
    )
    connection.execute(
        "CREATE TABLE answers (run INTEGER NOT NULL, key BLOB NOT NULL, answer BLOB NOT NULL,"
        " sum INTEGER, PRIMARY KEY (run, key)) WITHOUT ROWID"
    )
    create_deliveries(connection)


def _lacking(connection: sqlite3.Connection) -> list[str]:
    """Return what makes a file of an earlier version as this one's. Either can go on with it then."""
    statements = [
        f"ALTER TABLE {table} ADD COLUMN sum INTEGER"
        for table in _SUMMED
        if lacks_column(connection, table, "sum")
    ]
    return statements + lacking_in_batches(connection)


def _adapted(connection: sqlite3.Connection) -> list[str]:
    """Return views of this connection that stand for tables of an earlier version, with all columns."""
    without_sums = [table for table in _SUMMED if lacks_column(connection, table, "sum")]
    views = dict.fromkeys(without_sums, "NULL AS sum") | lacking_columns_of_batches(connection)
    return [f"CREATE TEMP VIEW {name} AS SELECT *, {more} FROM main.{name}" for name, more in views.items()]  # noqa: S608


JOURNAL_FILE: Final = FileFormat("journal", int.from_bytes(b"Ulrj"), 1, _create_tables, _lacking, _adapted)
"""The format of the file of a journal."""


def _record(row: Sequence[Any]) -> RunRecord:
    """Return what a row says. Raises `Damaged`, with the rest of it."""
    try:
        return _whole_record(row)
    except Damaged as error:
        names = ("run_id", "spec", "owner", "key", "tags", "state", "created", "ended", "code", "message")
        fields: dict[str, Any] = dict(zip((*names, "events", "bytes"), row, strict=False))
        raise Damaged(str(error), rest_of(error, row[0], fields)) from error


def _whole_record(row: Sequence[Any]) -> RunRecord:
    for value, kinds in zip(row, _KINDS, strict=True):
        if not isinstance(value, kinds):
            raise Damaged(f"a column of the run is of type {type(value).__name__}")
    run_id, spec, owner, key, tags, state, created, *rest = row
    ended, code, message, events, size, leases, cancelling, known = rest
    if state not in STATES:
        raise Damaged("the state of the run is none")
    check_sum("the request of the run", known, spec, tags)
    return RunRecord(
        run_id=run_id,
        spec=decode_spec(spec),
        owner=owner,
        idempotency_key=key,
        tags=decode_tags(tags),
        state=state,
        created=created,
        ended=ended,
        code=code,
        message=message,
        events=events,
        bytes=size,
        executions=leases,
        cancelling=bool(cancelling),
    )


# --- reading -----------------------------------------------------------------------------------------------


def read_run(connection: sqlite3.Connection, run_id: str) -> RunRecord | None:
    """Return one run; None: there is none."""
    row = connection.execute(f"SELECT {_COLUMNS} FROM runs WHERE run_id = ?", (run_id,)).fetchone()  # noqa: S608
    return None if row is None else _record(row)


def list_runs(
    connection: sqlite3.Connection,
    owner: str | None,
    states: Sequence[RunState],
    before: str | None,
    limit: int,
) -> list[RunRecord]:
    """Return runs, the last accepted first."""
    where, values = ["1"], list[object]()
    if owner is not None:
        where.append("owner = ?")
        values.append(owner)
    if states:
        where.append(f"state IN ({', '.join('?' for _ in states)})")
        values += states
    if before is not None:
        where.append("number < (SELECT number FROM runs WHERE run_id = ?)")
        values.append(before)
    query = f"SELECT {_COLUMNS} FROM runs WHERE {' AND '.join(where)} ORDER BY number DESC LIMIT ?"  # noqa: S608
    rows = connection.execute(query, (*values, limit))
    found: list[RunRecord] = []
    size = 0
    for row in rows:
        found.append(listed(_record, row))
        size += sum(len(value) for value in row[1:5] if isinstance(value, (bytes, str)))
        if size >= LIST_BYTES:
            break
    return found


def read_events(connection: sqlite3.Connection, run_id: str, after: int, limit: int) -> list[Event]:
    """Return the events behind `after`, of a page at most."""
    rows = connection.execute(
        "SELECT event, sum FROM events WHERE run = (SELECT number FROM runs WHERE run_id = ?) AND seq > ?"
        " ORDER BY seq LIMIT ?",
        (run_id, after, limit),
    )
    found: list[Event] = []
    size = 0
    for event, known in rows:
        found.append(intact_event(event, known))
        size += len(event)
        if size >= PAGE_BYTES:
            break
    return found


def read_answer_keys(connection: sqlite3.Connection, run_id: str) -> frozenset[AnswerKey]:
    """Return the keys of the answers that were kept for a run."""
    query = "SELECT key FROM answers WHERE run = (SELECT number FROM runs WHERE run_id = ?)"
    rows = connection.execute(query, (run_id,))
    return frozenset(key for (key,) in rows if isinstance(key, bytes))  # the file may be damaged


def read_answer(connection: sqlite3.Connection, run_id: str, key: AnswerKey) -> ModelResponse | None:
    """Return one answer of a run; None: there is none that can be read."""
    row = connection.execute(
        "SELECT answer, sum FROM answers WHERE run = (SELECT number FROM runs WHERE run_id = ?) AND key = ?",
        (run_id, key),
    ).fetchone()
    return None if row is None else sound_answer(run_id, key, *row)


# --- changing ----------------------------------------------------------------------------------------------


def add_run(
    connection: sqlite3.Connection, run: RunRecord, holder: str | None, now: float, lease: float
) -> Claim | RunRecord:
    """Accept a run, or return the one of the same idempotency key."""
    if run.idempotency_key is not None:
        row = connection.execute(
            f"SELECT {_COLUMNS} FROM runs WHERE idempotency_key = ? AND coalesce(owner, '') = ?"  # noqa: S608
            " AND (owner IS NULL) = ?",
            (run.idempotency_key, run.owner or "", run.owner is None),
        ).fetchone()
        if row is not None:
            return _record(row)
    leases = 0 if holder is None else 1
    size = _insert(connection, replace(run, created=now), holder, leases, now + lease)
    record = replace(run, state="queued", created=now, events=0, bytes=size, executions=leases)
    if holder is None:
        return record
    return Claim(run=record, lease=Lease(run_id=run.run_id, holder=holder, number=leases))


def _insert(
    connection: sqlite3.Connection,
    run: RunRecord,
    holder: str | None,
    leases: int,
    until: float,
) -> int:
    """Write a run that waits, and return the bytes that it takes up so far."""
    spec, tags = encode_spec(run.spec), encode_tags(run.tags)
    size = len(spec) + len(tags)
    connection.execute(
        "INSERT INTO runs (run_id, spec, owner, idempotency_key, tags, state, created, bytes, holder, leases,"
        " held_until, sum) VALUES (?, ?, ?, ?, ?, 'queued', ?, ?, ?, ?, ?, ?)",
        (
            *(run.run_id, spec, run.owner, run.idempotency_key, tags, run.created, size, holder, leases),
            *(until, checksum(spec, tags)),
        ),
    )
    return size


def record_run(
    connection: sqlite3.Connection,
    run: RunRecord,
    events: Sequence[tuple[int, bytes]],
    answers: Mapping[AnswerKey, bytes],
    ended: tuple[Ending, float],
) -> None:
    """Write a run that has ended so, at this time, with encoded events and answers."""
    _insert(connection, run, None, 1, 0.0)
    (number,) = connection.execute("SELECT number FROM runs WHERE run_id = ?", (run.run_id,)).fetchone()
    for key, answer in answers.items():
        _put(connection, number, key, answer)
    _write(connection, number, events, *ended)


def claim_runs(
    connection: sqlite3.Connection, holder: str, limit: int, now: float, lease: float
) -> list[Claim]:
    """Give `holder` the runs that nobody holds, the oldest first."""
    rows = connection.execute(
        f"SELECT number FROM runs WHERE {_OPEN} AND (holder IS NULL OR held_until <= ? OR held_until > ?)"  # noqa: S608
        " ORDER BY number LIMIT ?",
        (now, latest_end(now, lease), limit),
    ).fetchall()
    claims = []
    for (number,) in rows:
        connection.execute(
            "UPDATE runs SET holder = ?, leases = leases + 1, held_until = ? WHERE number = ?",
            (holder, now + lease, number),
        )
        row = connection.execute(f"SELECT {_COLUMNS} FROM runs WHERE number = ?", (number,)).fetchone()  # noqa: S608
        try:
            record = _record(row)
        except Damaged as error:
            _end_damaged(connection, number, row, error, now)
            continue
        lease_given = Lease(run_id=record.run_id, holder=holder, number=record.executions)
        claims.append(Claim(run=record, lease=lease_given))
    return claims


def _end_damaged(
    connection: sqlite3.Connection, number: int, row: Sequence[Any], damage: Damaged, now: float
) -> None:
    query = "SELECT coalesce(max(seq), -1) + 1 FROM events WHERE run = ?"
    (seq,) = connection.execute(query, (number,)).fetchone()
    last, ending = damaged_end(str(row[0]), seq, damage)
    connection.execute("UPDATE runs SET events = ? WHERE number = ?", (seq, number))
    _write(connection, number, [(seq, encode_event(last))], ending, now)


def renew_leases(connection: sqlite3.Connection, leases: Sequence[Lease], until: float) -> Renewal:
    """Let leases hold until then, as far as nobody else has taken them."""
    held, cancelling = [], []
    for lease in leases:
        row = connection.execute(
            f"UPDATE runs SET held_until = ? WHERE run_id = ? AND holder = ? AND leases = ? AND {_OPEN}"  # noqa: S608
            " RETURNING cancelling",
            (until, lease.run_id, lease.holder, lease.number),
        ).fetchone()
        if row is not None:
            held.append(lease.run_id)
            cancelling += [lease.run_id] * row[0]
    return Renewal(held=frozenset(held), cancelling=frozenset(cancelling))


def release_leases(connection: sqlite3.Connection, leases: Sequence[Lease]) -> None:
    """Give leases up."""
    connection.executemany(
        "UPDATE runs SET holder = NULL WHERE run_id = ? AND holder = ? AND leases = ?",
        [(lease.run_id, lease.holder, lease.number) for lease in leases],
    )


def _number_under(connection: sqlite3.Connection, lease: Lease) -> int:
    row = connection.execute(
        f"SELECT number FROM runs WHERE run_id = ? AND holder = ? AND leases = ? AND {_OPEN}",  # noqa: S608
        (lease.run_id, lease.holder, lease.number),
    ).fetchone()
    if row is None:
        raise LeaseLost
    return int(row[0])


def append_events(
    connection: sqlite3.Connection,
    lease: Lease,
    events: Sequence[tuple[int, bytes]],
    ending: Ending | None,
    now: float,
) -> None:
    """Write encoded events under their numbers, and with the last one how the run ended."""
    _write(connection, _number_under(connection, lease), events, ending, now)


def _write(
    connection: sqlite3.Connection,
    number: int,
    events: Sequence[tuple[int, bytes]],
    ending: Ending | None,
    now: float,
) -> None:
    (known,) = connection.execute("SELECT events FROM runs WHERE number = ?", (number,)).fetchone()
    events = [(seq, event) for seq, event in events if seq >= known]
    connection.executemany(
        "INSERT INTO events (run, seq, event, sum) VALUES (?, ?, ?, ?)",
        [(number, seq, event, checksum(event)) for seq, event in events],
    )
    size = sum(len(event) for _, event in events)
    connection.execute(
        "UPDATE runs SET state = 'running', events = events + ?, bytes = bytes + ? WHERE number = ?",
        (len(events), size, number),
    )
    if ending is not None:
        connection.execute(
            "UPDATE runs SET state = ?, code = ?, message = ?, ended = ?, holder = NULL WHERE number = ?",
            (ending.state, ending.code, ending.message, now, number),
        )


def put_answer(connection: sqlite3.Connection, lease: Lease, key: AnswerKey, answer: bytes) -> None:
    """Keep an encoded answer."""
    _put(connection, _number_under(connection, lease), key, answer)


def _put(connection: sqlite3.Connection, number: int, key: AnswerKey, answer: bytes) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO answers (run, key, answer, sum) VALUES (?, ?, ?, ?)",
        (number, key, answer, checksum(key, answer)),
    )
    connection.execute("UPDATE runs SET bytes = bytes + ? WHERE number = ?", (len(answer), number))


def cancel_run(
    connection: sqlite3.Connection, run_id: str, event: Event, ending: Ending, now: float
) -> RunRecord | None:
    """End a run that nobody holds, or note that its holder is to end it.

    Raises `Damaged` after that, if its record cannot be read.
    """
    row = connection.execute(
        "SELECT number, state, events, holder IS NOT NULL AND held_until > ? FROM runs WHERE run_id = ?",
        (now, run_id),
    ).fetchone()
    if row is None:
        return None
    number, state, events, held = row
    if state not in ENDED:
        connection.execute("UPDATE runs SET cancelling = 1 WHERE number = ?", (number,))
        if not held:
            found = connection.execute(f"SELECT {_COLUMNS} FROM runs WHERE number = ?", (number,)).fetchone()  # noqa: S608
            try:
                _record(found)
            except Damaged as error:
                _end_damaged(connection, number, found, error, now)
                raise
            last = encode_event(
                replace(event, run_id=run_id, seq=events, time=_time_of(connection, run_id, events - 1))
            )
            _write(connection, number, [(events, last)], ending, now)
    return read_run(connection, run_id)


def _time_of(connection: sqlite3.Connection, run_id: str, seq: int) -> float:
    try:
        found = read_events(connection, run_id, seq - 1, 1)
    except Damaged:
        return 0.0
    return found[-1].time if found else 0.0


def delete_run(connection: sqlite3.Connection, run_id: str, now: float) -> bool:
    """Remove a run that has ended, or that is damaged and held by nobody."""
    row = connection.execute(
        f"SELECT number, ended IS NOT NULL, holder IS NOT NULL AND held_until > ?, {_COLUMNS}"  # noqa: S608
        " FROM runs WHERE run_id = ?",
        (now, run_id),
    ).fetchone()
    if row is None:
        return False
    number, has_ended, is_held, *columns = row
    if not has_ended:
        try:
            _record(columns)
        except Damaged:
            if is_held:
                return False
        else:
            return False
    _remove(connection, (number,))
    return True


def _remove(connection: sqlite3.Connection, number: tuple[int]) -> None:
    for table, column in (("events", "run"), ("answers", "run"), ("runs", "number")):
        connection.execute(f"DELETE FROM {table} WHERE {column} = ?", number)  # noqa: S608


def excess_bytes(connection: sqlite3.Connection, retention: Retention) -> int:
    """Return how many bytes the runs take up beyond what the retention allows."""
    if retention.bytes is None:
        return 0
    (total,) = connection.execute("SELECT coalesce(sum(bytes), 0) FROM runs").fetchone()
    return max(0, int(total) - retention.bytes)


def prune_runs(
    connection: sqlite3.Connection, retention: Retention, now: float, excess: int
) -> tuple[list[str], int]:
    """Remove some of the runs that are not to be kept; return their ids, and the excess that is left.

    None: there are no more.
    """
    rows = connection.execute(
        "SELECT number, run_id, bytes, ended FROM runs WHERE ended IS NOT NULL ORDER BY ended LIMIT ?",
        (_MOST_PRUNED,),
    ).fetchall()
    removed, freed = list[str](), 0
    for number, run_id, size, ended in rows:
        if not isinstance(ended, float):
            continue  # it is damaged: who deletes it should know
        too_old = retention.seconds is not None and ended < now - retention.seconds
        if (not too_old and excess <= freed) or freed > _MOST_FREED:
            break
        _remove(connection, (number,))
        freed += size if isinstance(size, int) else 0
        removed.append(run_id)
    return removed, max(0, excess - freed)
