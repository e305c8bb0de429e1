"""Connections to SQLite files of Ultra: who may own them, how they are told from others, transactions.

A file with a write-ahead log needs two files beside it, even where it is only read. Where SQLite cannot make
them, since the folder cannot be written, a file whose log is empty is read as it stands (`Snapshot`).
"""

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
    "Snapshot",
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
        adapted: returns the statements that let a connection read a file of an earlier version as one of
            this, and leave the file as it is.
    """

    what: str
    application_id: int
    version: int
    create_tables: Callable[[sqlite3.Connection], None]
    lacking: Callable[[sqlite3.Connection], list[str]] | None = None
    adapted: Callable[[sqlite3.Connection], list[str]] | None = None


class Snapshot(sqlite3.Connection):
    """Reads a file of which SQLite takes for granted that nobody changes it: close it after each use."""


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
        PermissionError: the file, or one of SQLite's beside it, is a link, or others could write it; or it
            cannot be read, or be written, as it must be.
        FileNotFoundError: there is no such folder.
    """
    for name in (path, *(f"{path}-{ending}" for ending in ("wal", "shm", "journal"))):
        _check_owner(name, file_format.what)
    if writing:
        # Answers may be private. SQLite gives its log and its index the permissions of the file.
        with suppress(OSError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        if Path(path).is_file() and not os.access(path, os.W_OK):  # SQLite would open it, and fail later
            denied = "is read-only" if os.access(path, os.R_OK) else "cannot be read"
            raise PermissionError(f"{path!r} {denied}, and the {file_format.what} must be written")
    try:
        return _opened(path, file_format, busy_timeout, writing=writing, synchronous=synchronous)
    except sqlite3.OperationalError as error:
        if not writing and os.access(path, os.R_OK) and _is_whole_without_log(path, error):
            return _opened(path, file_format, busy_timeout, writing=False, snapshot=True)
        raise _denied(path, file_format.what, error, writing=writing) or error from None


def _opened(
    path: str,
    file_format: FileFormat,
    busy_timeout: float,
    *,
    writing: bool,
    synchronous: Literal["NORMAL", "FULL"] = "NORMAL",
    snapshot: bool = False,
) -> sqlite3.Connection:
    # A file that has vanished must not come back empty.
    mode = "mode=ro&immutable=1" if snapshot else "mode=rw"
    connection = sqlite3.connect(
        f"{Path(path).absolute().as_uri()}?{mode}",
        uri=True,
        timeout=busy_timeout,
        isolation_level=None,
        check_same_thread=False,
        factory=Snapshot if snapshot else sqlite3.Connection,
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
        if not writing and file_format.adapted is not None:
            for statement in file_format.adapted(connection):
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


def _is_refused(error: sqlite3.Error) -> bool:
    """Return whether SQLite may not write where it would have to."""
    return error_code(error) in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM}


def _is_whole_without_log(path: str, error: sqlite3.Error) -> bool:
    """Return whether all that is in the file can be read without the files beside it, and has to be."""
    return _is_refused(error) and Path(path).is_file() and not _has_log(path)


def _has_log(path: str) -> bool:
    # A program that has the file open keeps its log there, so without one nobody changes the file now.
    try:
        return Path(f"{path}-wal").stat().st_size > 0
    except OSError:
        return False


def _denied(path: str, what: str, error: sqlite3.Error, *, writing: bool) -> OSError | None:
    """Return an error that says what SQLite was not allowed; None: it was something else."""
    if not _is_refused(error) or Path(path).is_dir():
        return None
    folder = Path(path).absolute().parent
    if not folder.is_dir() or not (writing or Path(path).exists()):
        absent = f"file {path!r}" if folder.is_dir() else f"folder {str(folder)!r} for the {what}"
        return FileNotFoundError(f"there is no {absent}")
    if Path(path).exists() and not os.access(path, os.R_OK):
        return PermissionError(f"{path!r} cannot be read")
    if os.access(folder, os.W_OK | os.X_OK):
        return None
    if not writing and Path(path).exists():
        return PermissionError(
            f"the last changes of {path!r} are in a file beside it, whose name ends in -wal, and cannot be "
            "read in a folder that is read-only: copy both to another folder, and name the copy"
        )
    return PermissionError(f"the folder {str(folder)!r} is read-only, and SQLite makes files beside {path!r}")


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
