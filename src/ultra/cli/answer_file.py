"""The file of `--output`: it gets the whole answer, or stays as it was."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Self

from ultra.errors import BadCall

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["AnswerFile"]


class AnswerFile:
    """Writes beside the file, and puts that in its place once all is written; a device is written to at once.

    Args:
        path: the file.
        given_as: what the user gave its path to, for errors.

    Raises:
        BadCall: the file cannot be written; this is found out before a model is asked.
    """

    def __init__(self, path: Path, given_as: str = "--output") -> None:
        self._path = path
        self._given_as = given_as
        self._target = Path(os.path.realpath(path))  # a link stays a link
        self._new: Path | None = None

    def __enter__(self) -> Self:
        try:
            if self._target.is_dir():
                raise BadCall(f"{self._given_as} {self._path} is a folder; name a file")
            if self._target.exists() and not self._target.is_file():
                return self
            new = self._target.with_name(f".{self._target.name[:100]}.{token_hex(6)}")
            os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            self._new = new
            if self._target.exists():
                if not os.access(self._target, os.W_OK):
                    raise PermissionError(f"{self._target} may not be written")
                new.chmod(self._target.stat().st_mode & 0o777)
        except OSError as error:
            self._remove()
            why = error.strerror or error
            raise BadCall(f"{self._given_as} {self._path}: it cannot be written: {why}") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def write(self, text: str) -> None:
        """Put `text` into the file. Raises `OSError`, and the file is as it was."""
        try:
            self._write(text.encode(errors="replace"))
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from error

    def _write(self, data: bytes) -> None:
        if self._new is None:
            self._target.write_bytes(data)
            return
        with self._new.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        self._new.replace(self._target)
        self._new = None

    def _remove(self) -> None:
        if self._new is not None:
            with suppress(OSError):
                self._new.unlink()
            self._new = None
