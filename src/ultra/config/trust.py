"""Which configuration files the user trusts, by path and digest: one that has changed needs trust again.

Each has one small file in the user's state directory, ``$XDG_STATE_HOME/ultra/trusted`` (by default
``~/.local/state/ultra/trusted``; on Windows in ``%LOCALAPPDATA%``), which only the user may write.
"""

from __future__ import annotations

import os
import stat
import sys
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Final, Literal, TypeVar

from ultra.config.toml_lines import TomlLines
from ultra.config.untrusted import wishes
from ultra.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ultra.config.file import ConfigurationFile

__all__ = ["check_trust", "described_wishes", "forget", "is_users_alone", "remember", "trust_in"]

T = TypeVar("T")

_MOST_SHOWN: Final = 5

Trust = Literal["none", "changed", "trusted"]


def check_trust(file: ConfigurationFile, how_to_name: str) -> None:
    """Raise `ConfigError` unless the file, which was found and not named, is trusted or asks for nothing.

    `how_to_name` says in the error how the user names the file, and so trusts it this once.
    """
    wanted = described_wishes(file)
    state = trust_in(file) if wanted else "trusted"
    if state == "trusted":
        return
    known = (
        "has changed since you trusted it" if state == "changed" else "you have neither named nor trusted it"
    )
    raise ConfigError(
        f"{file.path}: it was found here and {known}; it would use {', '.join(wanted)}. It is not used, and "
        f"what you have is not sent. If you know what is in it, {how_to_name}, or trust it as it is now: "
        f"ultra config trust {file.path}"
    )


def is_users_alone(path: Path) -> bool:
    """Return whether only this user or the administrator may write the file; links are followed."""
    if sys.platform == "win32":
        return True
    try:
        status = path.stat()
    except OSError:
        return False
    others = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return not others and status.st_uid in {os.geteuid(), 0}


def described_wishes(file: ConfigurationFile) -> list[str]:
    """Return what the file may have only if it is trusted, each with its place. Raises `ConfigError`."""
    wanted = wishes(file.table())
    lines = TomlLines(str(file.path), file.text())
    shown = [f"{what} ({lines.place(*where)})" for where, what in wanted[:_MOST_SHOWN]]
    more = len(wanted) - len(shown)
    return [*shown, f"and {more} more"] if more else shown


def trust_in(file: ConfigurationFile) -> Trust:
    """Return whether the user trusts these bytes at this path. What cannot be read says nothing of trust."""
    try:
        kept = _read_entry(_entry(file.path))
    except (OSError, RuntimeError, ValueError):
        return "none"
    if kept == _content(file):
        return "trusted"
    return "changed" if kept else "none"


def remember(file: ConfigurationFile) -> None:
    """Remember that the user trusts the file as it was read. Raises `ConfigError`."""

    def write(entry: Path) -> None:
        entry.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_own(os.lstat(entry.parent), entry.parent)
        new = entry.with_name(f"{entry.name}.{token_hex(8)}")
        try:
            descriptor = os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            with os.fdopen(descriptor, "wb") as opened:
                opened.write(_content(file))
            new.replace(entry)
        finally:
            new.unlink(missing_ok=True)

    _change(file.path, write)


def forget(path: Path) -> bool:
    """Trust the file at `path` no more; it need not exist. Return whether it was trusted.

    Raises:
        ConfigError: what is remembered cannot be changed.
    """

    def remove(entry: Path) -> bool:
        try:
            entry.unlink()
        except FileNotFoundError:
            return False
        return True

    return _change(path, remove)


def _change(path: Path, change: Callable[[Path], T]) -> T:
    try:
        return change(_entry(path))
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(f"which files are trusted cannot be written: {error}") from error


def _entry(path: Path) -> Path:
    name = sha256(os.fsencode(_absolute(path))).hexdigest()
    return _directory() / name


def _directory() -> Path:
    given = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_STATE_HOME", "")
    home = Path(given) if Path(given).is_absolute() else Path.home() / ".local" / "state"
    return home / "ultra" / "trusted"


def _absolute(path: Path) -> Path:
    # A link is not followed: what a file names is looked for from where it lies, not from where it leads to.
    return path.parent.resolve() / path.name


def _content(file: ConfigurationFile) -> bytes:
    return f"{sha256(file.data).hexdigest()}\n".encode() + os.fsencode(_absolute(file.path)) + b"\n"


def _read_entry(entry: Path) -> bytes | None:
    _check_own(os.lstat(entry.parent), entry.parent)
    descriptor = os.open(entry, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(descriptor, "rb") as opened:
        _check_own(os.fstat(descriptor), entry)
        return opened.read(2**16)


def _check_own(status: os.stat_result, path: Path) -> None:
    """Raise `PermissionError` for what others than the user may write, or for a link."""
    if sys.platform == "win32":
        return
    others = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if stat.S_ISLNK(status.st_mode) or others or status.st_uid != os.geteuid():
        raise PermissionError(f"{path} is a link, or others than you may write it")
