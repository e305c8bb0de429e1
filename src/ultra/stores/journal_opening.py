"""Makes the journal that a setting names, and imports its module only then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from ultra.errors import BadCall
from ultra.stores.journal_contract import RunJournal
from ultra.stores.journal_fence import FencedJournal
from ultra.stores.opening import shown_store

if TYPE_CHECKING:
    from ultra.stores.journal_contract import Retention

__all__ = ["Synchronous", "check_journal", "open_journal"]

Synchronous = Literal["normal", "full"]
"""normal: a process that is killed loses nothing, a power cut the last moments. full: neither does."""

_SQLITE: Final = "sqlite:///"
_REDIS: Final = ("redis://", "rediss://")


def open_journal(
    spec: RunJournal | str,
    *,
    retention: Retention | None = None,
    synchronous: Synchronous = "normal",
    lease: float = 10.0,
    read_only: bool = False,
) -> RunJournal:
    """Return the journal that `spec` names, whose leases hold for `lease` seconds.

    ``"sqlite:///runs.db"`` makes a `SqliteJournal` at a path relative to the working directory,
    ``"sqlite:////var/runs.db"`` one at an absolute path; ``"redis://host:6379/0"`` makes a `RedisJournal`,
    over TLS with ``rediss://``; ``"memory"`` makes a `MemoryJournal`. An object that has the methods of a
    `RunJournal` is taken as it is. What goes wrong in a journal is fenced; see `FencedJournal`. A file
    that is opened `read_only` is not changed, whatever its version; see `SqliteJournal`.

    Raises:
        BadCall: `spec` is none of these, or `synchronous` is not for it.
        MissingExtra: the journal needs packages that are not installed.
        ConfigError: the file is not a journal, or belongs to a newer version of Ultra.
        JournalUnavailable: the file cannot be opened.
    """
    if isinstance(spec, FencedJournal):
        return spec
    return FencedJournal(_opened(spec, retention, synchronous, lease, read_only=read_only))


def _opened(
    spec: RunJournal | str,
    retention: Retention | None,
    synchronous: Synchronous,
    lease: float,
    *,
    read_only: bool,
) -> RunJournal:
    if isinstance(spec, str):
        check_journal(spec, synchronous)
        if spec.startswith(_REDIS):
            from ultra.stores.journal_redis import RedisJournal  # noqa: PLC0415 - it needs the extra

            return RedisJournal(spec, lease=lease, retention=retention)
        if spec.startswith(_SQLITE):
            from ultra.stores.journal_sqlite import SqliteJournal  # noqa: PLC0415 - few need it

            path = spec.removeprefix(_SQLITE)
            return SqliteJournal(
                path, synchronous=synchronous, lease=lease, retention=retention, read_only=read_only
            )
        from ultra.stores.journal_memory import MemoryJournal  # noqa: PLC0415 - as above

        return MemoryJournal(lease=lease, retention=retention)
    if isinstance(spec, RunJournal):
        return spec
    raise _not_allowed(spec)


def check_journal(spec: str, synchronous: Synchronous = "normal") -> None:
    """Raise `BadCall` if `open_journal` does not take these. Nothing is opened or made."""
    if spec.startswith(_SQLITE):
        from ultra.stores.sqlite import check_path  # noqa: PLC0415 - few need it

        check_path(spec.removeprefix(_SQLITE))
    elif spec.startswith(_REDIS):
        from ultra.stores.redis_server import check_url  # noqa: PLC0415 - few need it

        check_url(spec)
        if synchronous != "normal":
            raise BadCall(
                f"synchronous is {synchronous!r}, and the journal is in Redis, where the server decides: "
                "set 'appendfsync always' there, and leave synchronous out"
            )
    elif spec != "memory":
        raise _not_allowed(spec)


def _not_allowed(spec: object) -> BadCall:
    return BadCall(
        f"journal={shown_store(spec)} is not allowed; give 'sqlite:///path', 'redis://host', 'memory', or "
        "an object with the methods of ultra.stores.RunJournal"
    )
