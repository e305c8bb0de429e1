"""Waking those that have waited for too long, by one task for all of them.

A stream waits before each of its tokens, and nearly always in vain for its next sign of life. A cancel scope
for each of these waits took a twentieth of what a token costs, and more than a kilobyte of an idle stream.
"""

from __future__ import annotations

from heapq import heappop, heappush
from math import inf
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Reminder", "Reminders"]


class Reminder:
    """That something is woken at a time, which is `due` (`anyio.current_time`)."""

    __slots__ = ("_wake", "due")

    def __init__(self, due: float, wake: Callable[[], None]) -> None:
        self.due = due
        self._wake: Callable[[], None] | None = wake

    def ring(self) -> None:
        """Wake it, unless that was cancelled."""
        wake, self._wake = self._wake, None
        if wake is not None:
            wake()

    def cancel(self) -> None:
        """Let it sleep, and forget it."""
        self._wake = None


class Reminders:
    """The reminders of one service; they ring while `work` runs."""

    def __init__(self) -> None:
        self._waiting: list[tuple[float, int, Reminder]] = []  # a heap
        self._count = 0
        self._earlier = anyio.Event()

    def add(self, due: float, wake: Callable[[], None]) -> Reminder:
        """Let `wake` be called at this time (`anyio.current_time`); it must not block, nor raise."""
        reminder = Reminder(due, wake)
        self._count += 1
        heappush(self._waiting, (due, self._count, reminder))
        if self._waiting[0][2] is reminder:
            self._earlier.set()
        return reminder

    async def work(self) -> None:
        """Ring at the times, until this is cancelled."""
        while True:
            self._earlier = anyio.Event()
            with anyio.CancelScope(deadline=self._ring_those_due()):
                await self._earlier.wait()

    def _ring_those_due(self) -> float:
        """Ring, and return when the next one is due."""
        waiting = self._waiting
        while waiting and waiting[0][0] <= anyio.current_time():
            heappop(waiting)[2].ring()
        return waiting[0][0] if waiting else inf
