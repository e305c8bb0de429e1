"""Keeps what is typed meanwhile from being echoed into a live display."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if sys.platform != "win32":
    import termios

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["silent_keyboard"]

STDIN: Final = 0


@contextmanager
def silent_keyboard() -> Iterator[None]:
    """Turn the terminal's echo off, and on again in the end; Ctrl-C and the other keys keep their meaning.

    Does nothing where stdin is no terminal, where the terminal is another program's at the time, and on
    Windows, which echoes only what a program reads.
    """
    if sys.platform == "win32" or not _is_ours():
        yield
        return
    before = termios.tcgetattr(STDIN)
    silent = [*before]
    silent[3] &= ~termios.ECHO  # the local modes
    termios.tcsetattr(STDIN, termios.TCSANOW, silent)
    try:
        yield
    finally:
        # In the background by now, it would be stopped for this; and the shell has seen to it already.
        if _is_ours():
            termios.tcsetattr(STDIN, termios.TCSANOW, before)


def _is_ours() -> bool:
    """Whether stdin is our terminal, and we are in its foreground."""
    try:
        return os.tcgetpgrp(STDIN) == os.getpgrp()
    except OSError:
        return False
