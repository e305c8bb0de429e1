"""The trio run that an orchestrator's actors use: the caller's own or, called from asyncio, a thread's."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, TypeVar

import sniffio
import trio
from trio.lowlevel import TrioToken, current_trio_token

from ultra._support.async_library import in_trio
from ultra._support.forking import Forkable
from ultra.errors import OrchestratorInUse

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from ultra.bridge.portal import SharedTrioThread

__all__ = ["TrioRun"]

T = TypeVar("T")


class TrioRun(Forkable):
    """The trio run that an orchestrator uses, and the way into it from the loop that calls.

    Called from trio, it is the caller's own run. Called from asyncio, it is the run of a trio thread, which
    lives as long as it is in use. Actors, and the locks that they share, belong to one trio run at a time. So
    what uses them claims the run, and until it is released, callers from other trio runs are refused::

        trio_run = TrioRun()
        await trio_run.run(work)  # on asyncio: in the trio thread; on trio: right here
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._thread: SharedTrioThread | None = None
        self._token: TrioToken | None = None
        self._token_thread: int | None = None  # that of the run
        self._claims = 0

    def forked(self) -> None:
        """Forget the trio runs of the parent process."""
        self._lock = threading.Lock()
        self._thread = self._token = None
        self._claims = 0

    def run(self, function: Callable[[], Awaitable[T]]) -> Awaitable[T]:
        """Return what awaits ``function()`` in the run, for its result. See `TrioThread.run`."""
        return function() if in_trio() else self._trio_thread().run(function)

    def wrap_context_manager(self, manager: AbstractAsyncContextManager[T]) -> AbstractAsyncContextManager[T]:
        """Return a context manager for the current loop that enters and leaves `manager` in the run."""
        return manager if in_trio() else self._trio_thread().wrap_context_manager(manager)

    def run_sync(self, function: Callable[[], T]) -> T:
        """Call ``function()`` in the run, between the steps of its tasks, or right here if it is not claimed.

        Blocks until the run's thread has called it: a fraction of a millisecond, unless that thread is busy.

        Raises:
            OrchestratorInUse: this is trio, and another trio run has been claimed.
        """
        token = self._token
        if token is None or (in_trio() and current_trio_token() is token):
            return function()
        if in_trio():
            raise _in_use()
        if self._token_thread == threading.get_ident():
            return _as_trio(function)  # by the host of a guest run, which would wait for itself
        try:
            return trio.from_thread.run_sync(function, trio_token=token)
        except trio.RunFinishedError:
            return function()  # it has just ended

    def claim(self) -> None:
        """On trio: make the current run the one that is used, until `release` is called as often.

        Raises:
            OrchestratorInUse: another trio run has been claimed.
        """
        token = current_trio_token()
        with self._lock:
            if self._claims and self._token is not token:
                raise _in_use()
            self._token = token
            self._token_thread = threading.get_ident()
            self._claims += 1

    def release(self) -> None:
        """Give up one `claim`."""
        with self._lock:
            self._claims -= 1
            if not self._claims:
                self._token = None

    def _trio_thread(self) -> SharedTrioThread:
        from ultra.bridge.portal import SharedTrioThread  # noqa: PLC0415 - imports asyncio

        with self._lock:
            if self._thread is None:
                self._thread = SharedTrioThread("ultra")
            return self._thread


def _as_trio(function: Callable[[], T]) -> T:
    """Call ``function()`` as a callback of the trio run that belongs to this thread, while its tasks wait."""
    host, sniffio.thread_local.name = sniffio.thread_local.name, "trio"
    try:
        return function()
    finally:
        sniffio.thread_local.name = host


def _in_use() -> OrchestratorInUse:
    return OrchestratorInUse(
        "this orchestrator is in use in another thread's trio run; make one for each trio run. (Several "
        "asyncio loops can share one.)"
    )
