"""Waiting on whichever event loop runs the caller: trio or asyncio.

Neither library is imported before a coroutine runs on it.
"""

from __future__ import annotations

import math
import sys
from contextlib import suppress
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["AnyLoopEvent", "sleep"]


async def sleep(seconds: float) -> None:
    """Sleep for so many seconds, `math.inf` for ever; other tasks run even if it is 0."""
    if _on_trio():
        import trio  # noqa: PLC0415 - see the module's text

        await trio.sleep(seconds)
        return
    import asyncio  # noqa: PLC0415 - see the module's text

    if seconds == math.inf:  # which not every loop takes for a time
        await asyncio.get_running_loop().create_future()
    await asyncio.sleep(seconds)


class AnyLoopEvent:
    """An event for which tasks of trio and of asyncio can wait, and which any thread can set.

    A test that runs in one loop can so wait for what happens in another::

        await model.asked.wait()
        model.gate.set()
    """

    def __init__(self, *, is_set: bool = False) -> None:
        self._set = is_set
        self._lock = Lock()
        self._wakers: set[Callable[[], None]] = set()

    def __repr__(self) -> str:
        state = "set" if self._set else "not set"
        return f"<AnyLoopEvent, {state}, {len(self._wakers)} waiting>"

    def is_set(self) -> bool:
        """Return whether the event is set."""
        return self._set

    def set(self) -> None:
        """Set the event, and wake all who wait for it."""
        with self._lock:
            self._set = True
            wakers, self._wakers = self._wakers, set()
        for wake in wakers:
            wake()

    def clear(self) -> None:
        """Reset the event: who waits from now on waits until it is set again."""
        with self._lock:
            self._set = False

    async def wait(self) -> None:
        """Wait until the event is set; if it is, let other tasks run and return."""
        with self._lock:
            if not self._set:
                wake, woken = _trio_waker() if _on_trio() else _asyncio_waker()
                self._wakers.add(wake)
            else:
                wake, woken = None, sleep(0)
        try:
            await woken
        finally:
            if wake is not None:
                with self._lock:
                    self._wakers.discard(wake)


def _on_trio() -> bool:
    trio = sys.modules.get("trio")
    return trio is not None and bool(trio.lowlevel.in_trio_run())


def _trio_waker() -> tuple[Callable[[], None], Awaitable[None]]:
    """Make a function that any thread can call, and what it wakes in this trio run."""
    import trio  # noqa: PLC0415 - see the module's text

    event, token = trio.Event(), trio.lowlevel.current_trio_token()

    def wake() -> None:
        if trio.lowlevel.in_trio_run() and trio.lowlevel.current_trio_token() is token:
            event.set()
            return
        with suppress(trio.RunFinishedError):
            token.run_sync_soon(event.set)

    return wake, event.wait()


def _asyncio_waker() -> tuple[Callable[[], None], Awaitable[None]]:
    """Make a function that any thread can call, and what it wakes in this asyncio loop."""
    import asyncio  # noqa: PLC0415 - see the module's text

    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()

    def finish() -> None:
        if not future.done():
            future.set_result(None)

    def wake() -> None:
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(finish)

    return wake, future
