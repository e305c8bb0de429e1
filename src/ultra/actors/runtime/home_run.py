"""The trio run that the actors of one system belong to, in which alone they can be called."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trio.lowlevel import current_trio_token

from ultra._support.async_library import in_trio
from ultra.errors import UsageError

if TYPE_CHECKING:
    from trio.lowlevel import TrioToken

__all__ = ["HomeRun"]


class HomeRun:
    """Know the trio run of a system, and refuse calls from anywhere else.

    Such a call would find the inbox and the tasks of another thread half changed, or wake a task of one run
    in the loop of another, after which both hang.
    """

    __slots__ = ("_token",)

    def __init__(self) -> None:
        self._token: TrioToken | None = None

    def settle(self) -> None:
        """Make the current run the one."""
        self._token = current_trio_token()

    def check(self, path: str) -> None:
        """Raise `UsageError` unless this is called in the run, by a task or a callback of trio."""
        # In guest mode the host's loop runs in the same thread; trio would not notice what its tasks do.
        if in_trio():
            if self._token is None or current_trio_token() is self._token:
                return
            where = "in another trio run"
        else:
            where = "outside of trio"
        raise UsageError(
            f"{path or '/'!r} was called {where}; it can be called only in the trio run of its system, and "
            "nothing was sent or changed. Another thread calls it by `trio.from_thread.run` or `.run_sync`"
        )
