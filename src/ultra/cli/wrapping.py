"""How many lines of the terminal a text takes that was written before the terminal was made narrower."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["lines_taken"]


def lines_taken(lengths: Iterable[int], width: int) -> int:
    """Return the lines that lines of these lengths take now that the terminal has `width` columns."""
    if not _wraps():
        return sum(1 for _ in lengths)
    return sum(max(1, -(-length // width)) for length in lengths)


def _wraps() -> bool:
    """Return whether the terminal wraps its lines when it is made narrower, as most do, or cuts them off."""
    name = os.environ.get("TERM", "")
    return not (
        "XTERM_VERSION" in os.environ  # xterm itself; others only call themselves so
        or (name.startswith(("linux", "rxvt", "screen")) and "TMUX" not in os.environ)
    )
