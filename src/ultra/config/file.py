"""One configuration file, read once: what is checked of it is what is used."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ultra.errors import ConfigError

__all__ = ["ConfigurationFile"]

_MOST_BYTES: Final = 2**19
"""Far more than anybody writes, and little enough for every step of reading it."""

_MOST_DOTS: Final = 5_000
_MOST_DOTS_OF_A_SECTION: Final = 250
"""In one line. To `tomllib`, a key costs the square of its parts, and each line all parts of its section."""


@dataclass(frozen=True)
class ConfigurationFile:
    """The bytes that a file had when it was read, and the path by which it was named."""

    path: Path
    data: bytes = field(repr=False)  # there may be a key in it

    @classmethod
    def read(cls, path: str | Path) -> ConfigurationFile:
        """Read the file at `path`. Raises `ConfigError` if it cannot be read, or is larger than 512 KiB."""
        path = Path(path)
        try:
            with path.open("rb") as file:
                data = file.read(_MOST_BYTES + 1)
        except (OSError, ValueError) as error:  # a path with a NUL is a ValueError
            raise ConfigError(f"{path}: it cannot be read: {error}") from error
        if len(data) > _MOST_BYTES:
            raise ConfigError(f"{path}: it has more than {_MOST_BYTES:,} bytes, which no configuration has")
        return cls(path, data)

    def text(self) -> str:
        """Return its text. Raises `ConfigError` if it is not UTF-8."""
        try:
            # Some editors put a mark before it. Lines end as Python's text files have it.
            text = self.data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ConfigError(f"{self.path}: it cannot be read: {error}") from error
        return text.replace("\r\n", "\n")

    def table(self) -> dict[str, Any]:
        """Return what is in it, as TOML has it. Raises `ConfigError` if it is not TOML."""
        text = self.text()
        for number, line in enumerate(text.split("\n"), start=1):
            most = _MOST_DOTS_OF_A_SECTION if line.lstrip().startswith("[") else _MOST_DOTS
            if line.count(".") > most:
                raise ConfigError(f"{self.path}:{number}: a line may have {most:,} dots at most")
        try:
            return tomllib.loads(text)
        except ValueError as error:  # also of a number with thousands of digits
            raise ConfigError(f"{self.path}: it is not TOML: {error}") from error
        except RecursionError:
            raise ConfigError(f"{self.path}: it is nested too deeply to be a configuration") from None
