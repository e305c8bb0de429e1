"""Where an orchestrator's actors run: in the caller's trio run or, called from asyncio, in a trio thread."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, TypeVar

import trio
from trio.lowlevel import TrioToken, current_trio_token, in_trio_run

from ultra.errors import OrchestratorInUse

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from ultra.bridge.portal import SharedTrioThread

__all__ = ["Place"]

T = TypeVar("T")


class Place:
    """The trio run that an orchestrator uses, and the way there from whatever loop calls.

    On trio it is the caller's own run; on asyncio it is that of a trio thread, which lives for as long
    as somebody uses it. Actors, and the locks that they share, are for one trio run at a time, so
    whoever uses them occupies the place, and callers from other runs are refused meanwhile.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: SharedTrioThread | None = None
        self._token: TrioToken | None = None
        self._occupants = 0

    async def run(self, function: Callable[[], Awaitable[T]]) -> T:
        """Await ``function()`` there."""
        return await (function() if in_trio_run() else self._trio_thread().run(function))

    def block(self, manager: AbstractAsyncContextManager[T]) -> AbstractAsyncContextManager[T]:
        """The trio context manager, for use on the loop that this is called on."""
        return manager if in_trio_run() else self._trio_thread().open(manager)

    def look(self, function: Callable[[], T]) -> T:
        """Call ``function()`` there, between the steps of its tasks; here, where nobody occupies it.

        Waits for the other thread: a fraction of a millisecond, unless that is busy.

        Raises:
            OrchestratorInUse: this is trio, and the place is another trio run.
        """
        token = self._token
        if token is None or (in_trio_run() and current_trio_token() is token):
            return function()
        if in_trio_run():
            raise _elsewhere()
        try:
            return trio.from_thread.run_sync(function, trio_token=token)
        except trio.RunFinishedError:
            return function()  # it has just ended

    def occupy(self) -> None:
        """On trio: make the current run the place, until as many calls of `vacate`.

        Raises:
            OrchestratorInUse: another trio run is.
        """
        token = current_trio_token()
        with self._lock:
            if self._occupants and self._token is not token:
                raise _elsewhere()
            self._token = token
            self._occupants += 1

    def vacate(self) -> None:
        """End what `occupy` began."""
        with self._lock:
            self._occupants -= 1
            if not self._occupants:
                self._token = None

    def _trio_thread(self) -> SharedTrioThread:
        from ultra.bridge.portal import SharedTrioThread  # noqa: PLC0415 - imports asyncio

        with self._lock:
            if self._thread is None:
                self._thread = SharedTrioThread("ultra")
            return self._thread


def _elsewhere() -> OrchestratorInUse:
    return OrchestratorInUse(
        "this orchestrator is in use in another thread's trio run; make one for each trio run. (Several "
        "asyncio loops can share one.)"
    )
