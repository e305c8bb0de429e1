"""Telling what interrupts a call from what its code raised by itself."""

from __future__ import annotations

import sys
from math import inf

import trio
from trio.lowlevel import in_trio_task

from ultra._support.async_library import in_trio

__all__ = ["is_interruption"]


def is_interruption(error: BaseException) -> bool:
    """Return whether `error` has to pass: it is KeyboardInterrupt, or the cancellation of the task that runs.

    A `Cancelled` of either library while nothing was cancelled, such as an old one raised again or that of
    another task, is no interruption; nor is `GeneratorExit` in a coroutine that nobody closes.
    """
    match error:
        case BaseExceptionGroup():
            return any(map(is_interruption, error.exceptions))
        case KeyboardInterrupt():
            return True
        case trio.Cancelled():
            return in_trio() and trio.current_effective_deadline() == -inf
        case GeneratorExit():
            return not (in_trio() and in_trio_task()) and _asyncio_task_is_cancelled() is None
        case Exception():
            return False
    asyncio = sys.modules.get("asyncio")
    of_asyncio = asyncio is not None and isinstance(error, asyncio.CancelledError)
    return of_asyncio and bool(_asyncio_task_is_cancelled())


def _asyncio_task_is_cancelled() -> bool | None:
    """Return whether the running asyncio task was asked to cancel; None if none runs here."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is None or in_trio():
        return None
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return None
    return None if task is None else task.cancelling() > 0
