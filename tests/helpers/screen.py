"""What a terminal shows of what a program has written to it, also after it was made narrower or wider."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pyte

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Screen"]


class Screen:
    """The screen of a terminal, and what has left it at its top.

    `wraps`: whether lines are wrapped when it is made narrower, as most terminals do; else they are cut off,
    as xterm does.
    """

    def __init__(self, columns: int, lines: int, *, wraps: bool = True) -> None:
        self.columns, self.lines, self.wraps = columns, lines, wraps
        self._screen: Any = pyte.HistoryScreen(columns, lines, history=10_000)
        self._stream: Any = pyte.Stream(self._screen)

    def feed(self, text: str) -> None:
        """Take what the program has written."""
        self._stream.feed(text)

    def resize(self, columns: int, lines: int) -> None:
        """Make it narrower, wider, lower or higher."""
        screen = self._screen
        before, at = [*self._rows(screen.history.top), *self._rows(self._buffer())], screen.cursor.y
        at += len(screen.history.top)
        self.columns, self.lines = columns, lines
        shown: list[str] = []
        line = 0
        for number, row in enumerate(before[: at + 1]):
            if number == at:
                line = len(shown) + (min(screen.cursor.x, len(row)) // columns if self.wraps else 0)
            shown += _pieces(row, columns) if self.wraps else [row[:columns]]
        above = max(0, len(shown) - lines)
        screen.history.top.clear()
        screen.resize(lines, columns)
        screen.erase_in_display(2)
        screen.history.top.extend(self._cells(row) for row in shown[:above])
        for number, row in enumerate(shown[above:]):
            screen.buffer[number].update(self._cells(row))
        screen.cursor.y, screen.cursor.x = line - above, screen.cursor.x % columns

    @property
    def rows(self) -> list[str]:
        """The lines on the screen, without the empty ones at its end."""
        return _without_end(self._rows(self._buffer()))

    @property
    def all_rows(self) -> list[str]:
        """Those that have left it, and those on it."""
        return _without_end([*self._rows(self._screen.history.top), *self._rows(self._buffer())])

    def _buffer(self) -> list[Any]:
        return [self._screen.buffer[number] for number in range(self._screen.lines)]

    def _rows(self, lines: Iterable[Any]) -> list[str]:
        return ["".join(line[x].data for x in range(self._screen.columns)).rstrip() for line in lines]

    def _cells(self, row: str) -> dict[int, Any]:
        blank = self._screen.default_char
        return defaultdict(
            lambda: blank, {number: blank._replace(data=sign) for number, sign in enumerate(row)}
        )


def _pieces(row: str, columns: int) -> list[str]:
    return [row[start : start + columns] for start in range(0, max(1, len(row)), columns)]


def _without_end(rows: list[str]) -> list[str]:
    while rows and not rows[-1]:
        rows.pop()
    return rows
