"""Deadlines for the sections of all handlers of a system, kept by one task.

To give a cancel scope a deadline and take it away again costs about 5 µs, and hardly any deadline ever
passes: what is asked gives its answer long before. So nothing is set here but an entry in a dictionary,
and the task sleeps until the first deadline that it saw when it last looked. Most likely that section
has ended by then, and it looks again. A deadline that does pass costs a look at all sections that go on,
about 0.1 µs each.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Protocol

import trio
from trio.lowlevel import enable_ki_protection

from ultra.actors.runtime.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["Timed", "Timekeeper"]


class Timed(Protocol):
    """What may take until `deadline` (`trio.current_time`)."""

    @property
    def deadline(self) -> float:
        """When it is to be cancelled."""
        ...

    def cancel(self) -> None:
        """Called once the deadline has passed; must not raise."""


class Timekeeper:
    """Cancels what was added when its deadline has passed.

    Its task begins when it is first needed, by `start`, and ends after `close`.
    """

    __slots__ = ("_closed", "_looks_at", "_running", "_start", "_timed", "_wakeup")

    def __init__(self, start: Callable[[Callable[[], Awaitable[None]]], None]) -> None:
        self._start = start
        self._timed: dict[Timed, None] = {}
        self._looks_at = inf  # no deadline is earlier, though what had this one may have been forgotten
        self._wakeup = Wakeup()
        self._running = self._closed = False

    def watch(self, timed: Timed) -> None:
        """Cancel `timed` at its deadline; to be called again when that has moved."""
        self._timed[timed] = None
        if timed.deadline < self._looks_at:
            self._looks_at = timed.deadline
            self._wakeup.wake()
            if not self._running:
                self._running = True
                self._start(self._run)

    def forget(self, timed: Timed) -> None:
        """Leave `timed` alone from now on."""
        self._timed.pop(timed, None)

    def close(self) -> None:
        """Nothing is watched any more, for good."""
        self._closed = True
        self._wakeup.wake()

    @enable_ki_protection
    async def _run(self) -> None:
        while not self._closed:
            await self._wakeup.wait(self._next_look())

    def _next_look(self) -> float:
        """Cancel what is overdue; returns when the next one will be, as far as that has to be known."""
        now = trio.current_time()
        if now < self._looks_at:
            return self._looks_at
        for timed in [timed for timed in self._timed if timed.deadline <= now]:
            del self._timed[timed]
            timed.cancel()
        self._looks_at = min([timed.deadline for timed in self._timed], default=inf)
        return self._looks_at
