"""What a forked child process has to forget: threads and locks of its parent, which do not live in it."""

from __future__ import annotations

import os
import weakref
from typing import Final

__all__ = ["Forkable"]


class Forkable:
    """Base class of what holds threads, locks or trio runs: `forked` is called in each forked child."""

    _all: Final[weakref.WeakSet[Forkable]] = weakref.WeakSet()

    def __init__(self) -> None:
        self._all.add(self)

    def forked(self) -> None:
        """Forget what belongs to the parent process; this is the child."""
        raise NotImplementedError


def _tell_all() -> None:
    for each in tuple(Forkable._all):  # noqa: SLF001 - of this module
        each.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_tell_all)
