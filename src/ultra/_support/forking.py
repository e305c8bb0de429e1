"""What a process that forks has to let go of first, and what its child has to forget."""

from __future__ import annotations

import os
import weakref
from contextlib import suppress
from typing import Final

__all__ = ["Forkable"]


class Forkable:
    """Base class of what must not be shared with a forked child: threads, locks, trio runs, open files.

    Of each object, `before_fork` is called in the process that forks, then `after_fork` in that process, and
    `forked` in the child.
    """

    _all: Final[weakref.WeakSet[Forkable]] = weakref.WeakSet()

    def __init__(self) -> None:
        self._all.add(self)

    def before_fork(self) -> None:
        """Let go of what must not be open in both processes, and keep other threads from opening it again."""

    def after_fork(self) -> None:
        """Go on in the process that has forked."""

    def forked(self) -> None:
        """Forget what belongs to the parent process; this is the child."""
        raise NotImplementedError


_held: list[Forkable] = []
"""Those of which `before_fork` was called; by one thread at a time, since they have locks."""


def _in_order() -> list[Forkable]:
    """Return all of them, in the same order in each thread that forks."""
    while True:
        try:
            return sorted(Forkable._all, key=id)  # noqa: SLF001 - of this module
        except RuntimeError:  # another thread has made one meanwhile
            continue


def _before() -> None:
    held = _in_order()
    for each in held:
        with suppress(Exception):  # such as a file that fails to close; the others are let go of all the same
            each.before_fork()
    _held[:] = held


def _after() -> None:
    held, _held[:] = list(_held), []
    for each in held:
        each.after_fork()


def _in_child() -> None:
    _held.clear()
    for each in _in_order():
        each.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_in_child)
