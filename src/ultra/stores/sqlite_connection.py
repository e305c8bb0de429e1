"""Connections to SQLite files of Ultra: who may own them, how they are told from others, transactions."""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from ultra.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "FileFormat",
    "connect",
    "error_code",
    "is_busy",
    "lacks_column",
    "refuse_newer_format",
    "transaction",
]

_OPENING_TRIES: Final = 20

# The tables are counted first: that reads the file, and from then on the transaction sees one state of it.
_IDENTITY: Final = ("SELECT count(*) FROM sqlite_master", "PRAGMA application_id", "PRAGMA user_version")


class FileFormat(NamedTuple):
    """What a file holds.

    Attributes:
        what: the word for it in messages, such as ``"cache"``.
        application_id: four bytes that tell the file from those of other programs.
        version: of the format.
        create_tables: makes the tables of a new file.
        lacking: returns the statements that make a file of an earlier version as one of this; without them if
            there is nothing to do.
    """

    what: str
    application_id: int
    version: int
    create_tables: Callable[[sqlite3.Connection], None]
    lacking: Callable[[sqlite3.Connection], list[str]] | None = None


def error_code(error: BaseException) -> int:
    """Return SQLite's code of an error; 0 where it has none."""
    # The lowest byte is the code, those above it are details. Errors of Python's own module have no code.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def is_busy(error: BaseException) -> bool:
    """Return whether another process was writing for too long; nothing is wrong with the file then."""
    return error_code(error) == sqlite3.SQLITE_BUSY


def connect(
    path: str,
    file_format: FileFormat,
    *,
    busy_timeout: float,
    writing: bool,
    synchronous: Literal["NORMAL", "FULL"] = "NORMAL",
) -> sqlite3.Connection:
    """Open the file, and check that it may be used; create it if it is absent and this is for `writing`.

    Raises:
        ConfigError: the file belongs to a newer version of Ultra, or to another program. It is left as it is.
        sqlite3.Error: the file cannot be opened, or created.
        PermissionError: the file, or one of SQLite's beside it, is a link, or others could write it.
    """
    for name in (path, *(f"{path}-{ending}" for ending in ("wal", "shm", "journal"))):
        _check_owner(name, file_format.what)
    if writing:
        # Answers may be private. SQLite gives its log and its index the permissions of the file.
        with suppress(OSError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    connection = sqlite3.connect(
        f"{Path(path).absolute().as_uri()}?mode=rw",  # a file that has vanished must not come back empty
        uri=True,
        timeout=busy_timeout,
        isolation_level=None,
        check_same_thread=False,
    )
    connection.text_factory = partial(str, encoding="utf-8", errors="replace")  # the file may be damaged
    try:
        with transaction(connection, "DEFERRED"):  # another process may be creating the file meanwhile
            ours = _is_ours(connection, path, file_format)
        if writing and not ours:
            _create(connection, path, file_format)
        if writing and file_format.lacking is not None and file_format.lacking(connection):
            with transaction(connection):
                for statement in file_format.lacking(connection):  # another process may have been first
                    connection.execute(statement)
        # With NORMAL, a process that is killed loses nothing; a power cut may lose the last transactions, not
        # the file.
        connection.execute(f"PRAGMA synchronous = {synchronous}")
    except BaseException as error:
        connection.close()
        if isinstance(error, UnicodeDecodeError):  # SQLite's own message quotes what stands in the file
            raise sqlite3.DatabaseError("the file is damaged") from error
        raise
    return connection


def lacks_column(connection: sqlite3.Connection, table: str, column: str) -> bool:
    """Return whether there is such a table, without such a column."""
    columns = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
    return bool(columns) and column not in columns


def _check_owner(name: str, what: str) -> None:
    """Refuse a file that somebody else could have written; take from others the permission to read it."""
    try:
        found = os.lstat(name)
    except (FileNotFoundError, NotADirectoryError):
        return
    if stat.S_ISLNK(found.st_mode):
        raise PermissionError(f"{name!r} is a link; the {what} must be a file itself")
    if stat.S_ISDIR(found.st_mode):
        return  # SQLite says that it cannot open it
    if not stat.S_ISREG(found.st_mode):
        raise PermissionError(f"{name!r} is no regular file")
    if not hasattr(os, "geteuid"):
        return
    if found.st_uid not in {os.geteuid(), 0}:
        raise PermissionError(f"{name!r} belongs to another user; remove it, or name another file")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(f"others may write {name!r}; remove it if you do not trust them, or chmod 600")
    if found.st_mode & (stat.S_IRGRP | stat.S_IROTH):
        with suppress(OSError):  # it may be root's
            file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                os.fchmod(file, stat.S_IRUSR | stat.S_IWUSR)
            finally:
                os.close(file)


def _is_ours(connection: sqlite3.Connection, path: str, file_format: FileFormat) -> bool:
    """Return True for a file of this format and False for an empty one; raise `ConfigError` for others."""
    what = file_format.what
    try:
        tables, application, version = (connection.execute(query).fetchone()[0] for query in _IDENTITY)
    except sqlite3.DatabaseError as error:
        if error_code(error) == sqlite3.SQLITE_NOTADB:
            raise ConfigError(
                f"{what} file {path!r} is not a SQLite file; name another file, or remove it"
            ) from error
        raise
    if (application, version, tables) == (0, 0, 0):
        return False
    if application != file_format.application_id:
        raise ConfigError(f"{what} file {path!r} is another program's SQLite file; name another file")
    if version > file_format.version:
        raise ConfigError(
            f"{what} file {path!r} has format {version}, of a newer version of Ultra; this version reads "
            f"format {file_format.version}: upgrade Ultra, name another file, or remove it"
        )
    return True


def _create(connection: sqlite3.Connection, path: str, file_format: FileFormat) -> None:
    # When two processes create the file at once, one of them may be told "busy" without any wait.
    for remaining in reversed(range(_OPENING_TRIES)):
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            with transaction(connection):
                if not _is_ours(connection, path, file_format):
                    file_format.create_tables(connection)
                    connection.execute(f"PRAGMA application_id = {file_format.application_id}")
                    connection.execute(f"PRAGMA user_version = {file_format.version}")
        except sqlite3.OperationalError as error:
            if not is_busy(error) or not remaining:
                raise
            time.sleep(0.02)
        else:
            return


@contextmanager
def transaction(
    connection: sqlite3.Connection, kind: Literal["IMMEDIATE", "DEFERRED"] = "IMMEDIATE"
) -> Iterator[None]:
    """Make all changes of the block, or none if it raises. What it reads is one state of the file."""
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # after some errors SQLite has rolled back itself
            connection.execute("ROLLBACK")
        raise


def refuse_newer_format(connection: sqlite3.Connection, file_format: FileFormat) -> None:
    """Raise `ConfigError` if a newer version of Ultra has taken the file over since it was opened."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > file_format.version:
        raise ConfigError(
            f"the {file_format.what} file was taken over by a newer version of Ultra (format {version})"
        )
