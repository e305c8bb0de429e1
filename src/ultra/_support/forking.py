"""What a process that forks has to let go of first, and what its child has to forget."""

from __future__ import annotations

import os
import threading
import weakref
from contextlib import suppress
from typing import Final

__all__ = ["ClosedForFork", "Forkable"]


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


class ClosedForFork(Forkable):
    """Base class of what has a file open that two processes must not share: it is closed before a fork.

    Who uses the file holds `_lock`, such as a thread that a cancelled task has left behind. It is held from
    closing the file until the process has forked, so that no other thread opens it meanwhile.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._is_held = False  # by the thread that forks

    def before_fork(self) -> None:
        """Close the file, and let no other thread open it."""
        self._is_held = self._lock.acquire()
        self._close()

    def after_fork(self) -> None:
        """Let it be opened again."""
        if self._is_held:  # else an interrupt has ended the waiting for the lock
            self._is_held = False
            self._lock.release()

    def forked(self) -> None:
        """Let it be opened, in the child."""
        self._lock = threading.Lock()
        self._is_held = False

    def _close(self) -> None:
        """Close the file; the next use opens it again."""
        raise NotImplementedError


class _Held(threading.local):
    """Those of which `before_fork` was called, by the thread that forks."""

    def __init__(self) -> None:
        self.all: list[Forkable] = []


_held: Final = _Held()


def _in_order() -> list[Forkable]:
    """Return all of them, in the same order in each thread that forks."""
    while True:
        try:
            return sorted(Forkable._all, key=id)  # noqa: SLF001 - of this module
        except RuntimeError:  # another thread has made one meanwhile
            continue


def _before() -> None:
    for each in _in_order():
        _held.all.append(each)  # at once: an interrupt may end this, and the process forks all the same
        with suppress(Exception):  # such as a file that fails to close; the others are let go of all the same
            each.before_fork()


def _after() -> None:
    held, _held.all = _held.all, []
    for each in held:
        each.after_fork()


def _in_child() -> None:
    _held.all = []
    for each in _in_order():
        each.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_in_child)
