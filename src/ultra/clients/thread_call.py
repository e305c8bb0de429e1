"""A call of a synchronous client in a worker thread, which may be given up while it runs."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ThreadCall"]


class ThreadCall:
    """A call in a worker thread, which may be given up while it runs, and is not made if it was before."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call
        self._lock = threading.Lock()
        self._state: Literal["new", "running", "given up", "ended"] = "new"
        self._on_end: Callable[[], None] | None = None

    def run(self) -> tuple[object]:
        """Make the call, in the worker thread."""
        with self._lock:
            if self._state == "given up":
                return (None,)
            self._state = "running"
        try:
            return (self._call(),)
        finally:
            with self._lock:
                self._state = "ended"
            if self._on_end is not None:
                self._on_end()

    def give_up(self, keep_slot: Callable[[], Callable[[], None]] | None) -> None:
        """Take note that nobody waits for the call; if it runs, keep its slot until it has ended."""
        with self._lock:
            if self._state == "running" and keep_slot is not None:
                self._on_end = keep_slot()
            elif self._state == "new":
                self._state = "given up"
