"""The question of a command: its argument, what is piped in, or both."""

from __future__ import annotations

import os
import select
import stat
import sys
from functools import partial
from typing import TYPE_CHECKING, Final, cast

from ultra.cli.output import tell
from ultra.errors import BadCall

if TYPE_CHECKING:
    from io import BufferedReader

__all__ = ["read_prompt"]

_PATIENCE: Final = 2.0
"""Seconds without piped text after which the user is told what the command waits for."""


def read_prompt(text: str | None, *, optional: bool = False) -> str:
    """Return the question: the piped text, an empty line, and `text`; or one of them alone.

    For ``-`` and None it is the piped text. `optional`: it may be empty, since a template has the words.

    Raises:
        BadCall: there is no question, or what is piped in is no UTF-8 text.
    """
    if text == "-":
        text = _read_stdin()
    else:
        piped = _read_stdin(waiting_for_more=text is not None) if _is_piped() else ""
        parts = [piped.rstrip(), text] if text else [piped]
        text = "\n\n".join(part for part in parts if part.strip())
    if not text.strip() and not optional:
        raise BadCall(
            'there is no question; give one: ultra ask "...", or pipe text in: '
            'git diff | ultra ask "Review this"'
        )
    return text


def _is_piped() -> bool:
    """Return whether stdin is a pipe, a file or a socket; a terminal and a device have no text to join."""
    if sys.stdin is None:
        return False
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def _read_stdin(*, waiting_for_more: bool = False) -> str:
    if sys.stdin is None:
        raise BadCall("the prompt is to be read from stdin, which is closed")
    # In pieces: Python handles Ctrl-C between two reads, and not within one.
    stdin = cast("BufferedReader", sys.stdin.buffer)
    if waiting_for_more and not _has_something(stdin):
        # Programs that start commands often leave a pipe open that nobody writes to.
        tell("waiting for the end of what is piped in; if nothing is, add: < /dev/null")
    pieces = iter(partial(stdin.read1, 1 << 16), b"")
    try:
        return b"".join(pieces).decode("utf-8-sig")  # some shells write a byte order mark
    except UnicodeDecodeError as error:
        raise BadCall(f"what stdin has is not UTF-8 text: {error.reason} at byte {error.start}") from None


def _has_something(stdin: BufferedReader) -> bool:
    if sys.platform == "win32":
        return True
    return bool(select.select([stdin], [], [], _PATIENCE)[0])
