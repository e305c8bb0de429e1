"""Waking those that have waited for too long, by one task for all of them.

A stream waits before each of its tokens, and nearly always in vain for its next sign of life; a run waits, as
much in vain, for the time at which it is given up. A cancel scope for each of these waits took a twentieth of
what a token costs, and a task for each run nearly 3 KB of what a stream that waits keeps.
"""

from __future__ import annotations

from contextvars import Context
from heapq import heapify, heappop, heappush
from math import inf
from typing import TYPE_CHECKING, Final, Self

import trio

from ultra._support.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from ultra._support.async_library import AsyncEvent, AsyncLibrary

__all__ = ["Reminder", "Reminders", "RunningReminders"]

_log = get_logger("ultra.reminders", ownerless=True)

_MOST_CANCELLED: Final = 1000
"""Reminders that were cancelled, and are kept until their time; with more, they are thrown out."""


class Reminder:
    """That something is woken at a time, which is `due` (`current_time` of the library)."""

    __slots__ = ("_reminders", "_wake", "due")

    def __init__(self, due: float, wake: Callable[[], None], reminders: Reminders) -> None:
        self.due = due
        self._wake: Callable[[], None] | None = wake
        self._reminders = reminders

    @property
    def is_over(self) -> bool:
        """Whether it has rung, or was cancelled."""
        return self._wake is None

    def ring(self) -> None:
        """Wake it, unless that was cancelled."""
        wake, self._wake = self._wake, None
        if wake is not None:
            wake()

    def cancel(self) -> None:
        """Let it sleep, and forget it."""
        if self._wake is not None:
            self._wake = None
            self._reminders.note_cancelled()


class Reminders:
    """Reminders on one event loop; they ring while `work` runs. `library`: whose."""

    def __init__(self, library: AsyncLibrary = trio) -> None:
        self._library = library
        self._waiting: list[tuple[float, int, Reminder]] = []  # a heap
        self._count = 0
        self._cancelled = 0
        self._earlier: AsyncEvent | None = None  # set when one was added that is due before all others

    def __len__(self) -> int:
        """Return how many are kept, those that were cancelled and are not thrown out yet included."""
        return len(self._waiting)

    def add(self, due: float, wake: Callable[[], None]) -> Reminder:
        """Let `wake` be called at this time (`current_time`); it must not block. What it raises is logged."""
        reminder = Reminder(due, wake, self)
        self._count += 1
        heappush(self._waiting, (due, self._count, reminder))
        if self._waiting[0][2] is reminder and self._earlier is not None:
            self._earlier.set()
        return reminder

    def note_cancelled(self) -> None:
        """Throw out those that were cancelled, once they are many, and more than half of all."""
        self._cancelled += 1
        if self._cancelled > max(_MOST_CANCELLED, len(self._waiting) // 2):
            self._waiting = [entry for entry in self._waiting if not entry[2].is_over]
            heapify(self._waiting)
            self._cancelled = 0

    async def work(self) -> None:
        """Ring at the times, until this is cancelled."""
        while True:
            self._earlier = self._library.Event()
            with self._library.CancelScope(deadline=self._ring_those_due()):
                await self._earlier.wait()

    def _ring_those_due(self) -> float:
        """Ring, and return when the next one is due."""
        while self._waiting and self._waiting[0][0] <= self._library.current_time():
            reminder = heappop(self._waiting)[2]
            self._cancelled -= reminder.is_over
            try:
                reminder.ring()
            except Exception as error:  # noqa: BLE001 - it would end all that are reminded, of which it is one
                _log.error("reminder failed", exc_info=error)
        return self._waiting[0][0] if self._waiting else inf


class RunningReminders(Reminders):
    """Reminders on trio that ring from entering this to leaving it."""

    def __init__(self) -> None:
        super().__init__()
        self._manager = trio.open_nursery()
        self._scope: trio.CancelScope | None = None

    async def __aenter__(self) -> Self:
        nursery = await self._manager.__aenter__()
        self._scope = nursery.cancel_scope
        # In an empty context: the task is not a part of the call that happens to start it.
        Context().run(nursery.start_soon, self.work)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._scope is not None:
            self._scope.shield = True  # so that it is over when this returns, after a cancellation, too
            self._scope.cancel()
            await self._manager.__aexit__(None, None, None)
