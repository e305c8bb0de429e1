"""The lines of keys in a TOML file, for error messages."""

from __future__ import annotations

import re
from functools import cached_property
from typing import Final

__all__ = ["TomlLines"]

# Each takes time in proportion to the line: what is taken is never given back, and the parts are stripped.
_HEADER: Final = re.compile(r"""\s*+\[{1,2}+((?:"[^"]*+"|'[^']*+'|[^\[\]"']++)++)\]""")
_KEY: Final = re.compile(r"""\s*+((?:"[^"]*+"|'[^']*+'|[\w\-. \t]++)++)=""")
_PART: Final = re.compile(r"""\s*+(?:"([^"]*+)"\s*+|'([^']*+)'\s*+|([^."']++))(?:\.|$)""")


class TomlLines:
    """The lines of one file. `tomllib` does not keep them, so they are searched, by simple patterns."""

    def __init__(self, source: str, text: str) -> None:
        self.source = source
        self._lines = text.split("\n")

    def __repr__(self) -> str:
        return f"TomlLines({self.source!r})"  # the text may hold a key

    def place(self, *where: str) -> str:
        """Return ``file:line: key`` for the key at this path, with the line of the key or of its section."""
        line = self._line_of(where)
        file = f"{self.source}:{line}" if line else self.source
        return f"{file}: {'.'.join(where)}"

    def _line_of(self, where: tuple[str, ...]) -> int | None:
        """Return the line of the key at this path, or else of what it is inside of."""
        known = self._known
        return next((known[where[:n]] for n in range(len(where), 0, -1) if where[:n] in known), None)

    @cached_property
    def _known(self) -> dict[tuple[str, ...], int]:
        """The first line of each section and key; read once, since a file may have many errors."""
        known: dict[tuple[str, ...], int] = {}
        section: tuple[str, ...] = ()
        for number, line in enumerate(self._lines, start=1):
            if header := _HEADER.match(line):
                section = _parts(header[1])
                known.setdefault(section, number)
            elif key := _KEY.match(line):
                known.setdefault((*section, *_parts(key[1])), number)
        return known


def _parts(dotted: str) -> tuple[str, ...]:
    """Return the keys of a path; one in quotes may have dots."""
    parts: list[str] = []
    at = 0
    while at < len(dotted) and (part := _PART.match(dotted, at)):
        parts.append((part[1] or part[2] or part[3] or "").strip())
        at = part.end()
    return tuple(parts)
