"""How `--help` is set: beside their names where there is room for a sentence, and below them elsewhere."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Final

import typer
from typer._click.formatting import HelpFormatter, wrap_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typer._click.core import Command

__all__ = ["set_help"]

_WIDEST: Final = 78
_NARROWEST: Final = 24
_ROOM: Final = 40
"""Columns that a text beside its name has at the least."""

_LONGEST_NAME: Final = 30
_GAP: Final = 2
_BELOW: Final = 4
"""Columns by which a text below its name is set in."""


class _HelpText(HelpFormatter):
    """Typer's, for narrow terminals too."""

    def __init__(
        self, indent_increment: int = 2, width: int | None = None, max_width: int | None = None
    ) -> None:
        if width is None:  # typer's own has never less than 50
            width = max(min(shutil.get_terminal_size().columns - 2, max_width or _WIDEST), _NARROWEST)
        super().__init__(indent_increment, width, max_width)

    def write_dl(
        self, rows: Sequence[tuple[str, str]], col_max: int = _LONGEST_NAME, col_spacing: int = _GAP
    ) -> None:
        """Write names and what is told of each."""
        longest = max((len(name) for name, _ in rows), default=0)
        beside = self.width - min(longest, col_max) - col_spacing - self.current_indent
        if beside >= _ROOM:
            super().write_dl(rows, col_max, col_spacing)
            return
        margin = " " * (self.current_indent + _BELOW)
        for name, told in rows:
            self.write(f"{' ' * self.current_indent}{name}\n")
            if told:
                text = wrap_text(told, self.width, initial_indent=margin, subsequent_indent=margin)
                self.write(f"{text}\n")


class _Context(typer.Context):
    formatter_class = _HelpText


def set_help(command: Command) -> Command:
    """Let the command, and those below it, set their help like this; return it."""
    command.context_class = _Context
    for each in getattr(command, "commands", {}).values():
        set_help(each)
    return command
