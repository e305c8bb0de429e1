"""Which child of a supervisor is started, stopped or given up next, and when."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from math import inf
from typing import TYPE_CHECKING

from msgspec import Struct

from ultra.supervisor.child import Phase

if TYPE_CHECKING:
    from ultra.supervisor.child import Child

__all__ = ["AT_ONCE", "Deadlines", "StartQueue", "StopQueue", "StopTerms"]

AT_ONCE = -inf
"""The due time of a start that waits for nothing but the starts before it."""

SPARE = 32
"""How many outdated entries the heap of a `StartQueue` may hold beside as many as there are valid ones."""


class StartQueue:
    """Children by the time [s] when their start is due; of equal times, by the order of scheduling.

    A child has at most one place in the queue: scheduling it again moves it.

    Attributes:
        starting: the child that is starting now, for which those after it wait.
    """

    def __init__(self) -> None:
        # An entry of the heap is valid if it is the one in `_places`: moving a child leaves its old entry
        # in the heap, which is dropped when it comes to the top.
        self._heap: list[tuple[float, int, Child]] = []
        self._places: dict[Child, tuple[float, int, Child]] = {}
        self._scheduled = 0
        self.starting: Child | None = None

    def schedule(self, child: Child, due: float) -> None:
        """Let `child` start at `due`, and no longer at any other time."""
        self.cancel(child)
        self._scheduled += 1
        entry = self._places[child] = (due, self._scheduled, child)
        heapq.heappush(self._heap, entry)

    def cancel(self, child: Child) -> None:
        """Do not start `child`."""
        if self._places.pop(child, None) is None:
            return
        if len(self._heap) > 2 * len(self._places) + SPARE:  # they would stay until a long backoff is over
            self._heap = list(self._places.values())
            heapq.heapify(self._heap)

    def due(self, child: Child) -> float:
        """Return when `child` is to be started; minus infinity if it is not scheduled."""
        place = self._places.get(child)
        return AT_ONCE if place is None else place[0]

    def next_due(self) -> float:
        """Return when the next start is due; infinity if there is none."""
        heap = self._heap
        while heap and self._places.get(heap[0][2]) is not heap[0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else inf

    def pop(self) -> Child:
        """Take out the child whose start `next_due` has returned."""
        child = heapq.heappop(self._heap)[2]
        del self._places[child]
        return child

    def take(self, child: Child, now: float) -> bool:
        """Take out `child` if its start is due; return whether it was."""
        place = self._places.get(child)
        is_due = place is not None and place[0] <= now
        if is_due:
            self.cancel(child)
        return is_due

    def release(self, child: Child) -> None:
        """End the wait of the others for `child`, if it is the one that is `starting`."""
        if self.starting is child:
            self.starting = None

    def clear(self, now: float) -> list[Child]:
        """Start no child; return those whose start was due, in order."""
        self.starting = None
        due = []
        while self.next_due() <= now:
            due.append(self.pop())
        self._heap.clear()
        self._places.clear()
        return due


class StopTerms(Struct, frozen=True):
    """How children are to be stopped: within `grace` seconds (None: each within its own), drained or not."""

    grace: float | None = None
    drain: bool = False

    def combined(self, other: StopTerms) -> StopTerms:
        """Return the stricter terms of two requests: no more time than either of them gives."""
        graces = [grace for grace in (self.grace, other.grace) if grace is not None]
        return StopTerms(min(graces, default=None), self.drain and other.drain)


class StopQueue:
    """Children in the order in which they are stopped: each one when the one before it has ended."""

    __slots__ = ("_current", "_waiting")

    def __init__(self) -> None:
        self._waiting: OrderedDict[Child, None] = OrderedDict()
        self._current: Child | None = None

    def __bool__(self) -> bool:
        """Return whether any child waits for its turn, or is being stopped in its turn."""
        return bool(self._waiting) or self._is_busy()

    def __contains__(self, child: Child) -> bool:
        """Return whether `child` still waits for its turn."""
        return child in self._waiting

    def add(self, child: Child) -> None:
        """Stop `child` after those added before it."""
        self._waiting[child] = None

    def cancel(self, child: Child) -> None:
        """Do not stop `child`, if its turn has not come."""
        self._waiting.pop(child, None)

    def clear(self) -> None:
        """Leave the children that were not stopped yet as they are."""
        self._waiting.clear()

    def pop(self) -> Child | None:
        """Return the child whose turn has come; None while the last one is still stopping, or at the end."""
        if self._is_busy():
            return None
        self._current = self._waiting.popitem(last=False)[0] if self._waiting else None
        return self._current

    def _is_busy(self) -> bool:
        return self._current is not None and self._current.phase is Phase.STOPPING


class Deadlines:
    """When a supervisor gives up waiting for a child that is starting or ending."""

    __slots__ = ("_deadlines",)

    def __init__(self) -> None:
        self._deadlines: dict[Child, float] = {}

    def __bool__(self) -> bool:
        """Return whether any child is waited for."""
        return bool(self._deadlines)

    def set(self, child: Child, deadline: float) -> None:
        """Wait for `child` until `deadline`."""
        self._deadlines[child] = deadline

    def shorten(self, child: Child, deadline: float) -> None:
        """Wait for `child` until `deadline`, or until its earlier deadline if it has one."""
        self._deadlines[child] = min(deadline, self._deadlines.get(child, inf))

    def cancel(self, child: Child) -> None:
        """Wait for `child` no longer."""
        self._deadlines.pop(child, None)

    def next(self) -> float:
        """Return the earliest deadline; infinity if there is none."""
        return min(self._deadlines.values(), default=inf)

    def pop_overdue(self, now: float) -> list[Child]:
        """Take out the children whose deadline has passed, and return them."""
        overdue = [child for child, deadline in self._deadlines.items() if deadline <= now]
        for child in overdue:
            del self._deadlines[child]
        return overdue
