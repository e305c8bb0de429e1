"""The console that everything rich draws goes through."""

from __future__ import annotations

import sys
from typing import NoReturn

from rich.console import Console

__all__ = ["open_console"]


def open_console() -> Console:
    """Make a console on stdout that takes no text for markup and adds no colours of its own."""
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    return _Console(markup=False, emoji=False, highlight=False)


class _Console(Console):
    def on_broken_pipe(self) -> NoReturn:
        """Let the error go on, to where the exit code is decided; rich would leave at once."""
        raise  # noqa: PLE0704 - called while the error is handled
