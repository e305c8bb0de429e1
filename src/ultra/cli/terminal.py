"""The terminal: the console through which rich draws, and a keyboard whose echo is off."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NoReturn

from rich.console import Console

from ultra.cli.output import replace_what_stdout_lacks

if sys.platform != "win32":
    import termios

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["open_console", "silent_keyboard"]

_STDIN: Final = 0


def open_console() -> Console:
    """Return a console on stdout that takes no text for markup and adds no colours of its own."""
    replace_what_stdout_lacks()
    return _Console(markup=False, emoji=False, highlight=False)


class _Console(Console):
    def on_broken_pipe(self) -> NoReturn:
        """Raise the error again, for the place that decides the exit code; rich would exit at once."""
        raise  # noqa: PLE0704 - called while the error is handled


@contextmanager
def silent_keyboard() -> Iterator[None]:
    """Turn the terminal's echo off inside the block; Ctrl-C and the other keys keep their meaning.

    This does nothing if stdin is no terminal, if another program is in the foreground of the terminal, and
    on Windows, which echoes only what a program reads.
    """
    if sys.platform == "win32" or not _in_foreground():
        yield
        return
    before = termios.tcgetattr(_STDIN)
    silent = [*before]
    silent[3] &= ~termios.ECHO  # the local modes
    termios.tcsetattr(_STDIN, termios.TCSANOW, silent)
    try:
        yield
    finally:
        # A program in the background would be stopped for this, and the shell has restored the terminal.
        if _in_foreground():
            termios.tcsetattr(_STDIN, termios.TCSANOW, before)


def _in_foreground() -> bool:
    """Return whether stdin is a terminal, with this program in its foreground."""
    try:
        return os.tcgetpgrp(_STDIN) == os.getpgrp()
    except OSError:
        return False
