"""Which children are to be started, and when."""

from __future__ import annotations

import heapq
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ultra.supervisor.child import Child

__all__ = ["AT_ONCE", "StartQueue"]

AT_ONCE = -inf
"""When a start is due that waits for nothing but those before it."""

SPARE = 32
"""How many entries that count no more the queue may hold besides as many as count."""


class StartQueue:
    """Children by the time [s] when their start is due; of equal times, by the order of scheduling.

    A child has one place in it: to schedule it again is to move it.
    """

    def __init__(self) -> None:
        # What the heap has of a child counts only if it bears the child's newest ticket: to move a child
        # leaves its old entry behind, to be dropped when it comes to the top.
        self._heap: list[tuple[float, int, Child]] = []
        self._tickets = 0
        self._waiting = 0  # how many children have a place
        self.awaited: Child | None = None
        """The child that is starting, and for which those after it wait."""

    def schedule(self, child: Child, due: float) -> None:
        """Let `child` start at `due`, and no longer at any other time."""
        self.cancel(child)
        self._waiting += 1
        self._tickets += 1
        child.ticket = self._tickets
        child.due = due
        heapq.heappush(self._heap, (due, self._tickets, child))

    def cancel(self, child: Child) -> None:
        """Do not start `child`."""
        if child.ticket:
            child.ticket = 0
            self._waiting -= 1
            if len(self._heap) > 2 * self._waiting + SPARE:  # a long backoff would keep what is no use
                self._heap = [entry for entry in self._heap if entry[2].ticket == entry[1]]
                heapq.heapify(self._heap)

    @staticmethod
    def due(child: Child) -> float:
        """When `child` is to be started; minus infinity when it is not."""
        return child.due if child.ticket else AT_ONCE

    def next_due(self) -> float:
        """When the next start is due; infinity when there is none."""
        heap = self._heap
        while heap and heap[0][2].ticket != heap[0][1]:
            heapq.heappop(heap)
        return heap[0][0] if heap else inf

    def release(self, child: Child) -> None:
        """Let those after `child` wait for it no longer, if they do."""
        if self.awaited is child:
            self.awaited = None

    def pop(self) -> Child:
        """Take out the child that `next_due` spoke of."""
        child = heapq.heappop(self._heap)[2]
        child.ticket = 0
        self._waiting -= 1
        return child

    def take(self, child: Child, now: float) -> bool:
        """Take out `child` if its start is due; returns whether it was."""
        is_due = bool(child.ticket) and child.due <= now
        if is_due:
            self.cancel(child)
        return is_due

    def clear(self, now: float) -> list[Child]:
        """Start nobody; returns those whose start was due, in order."""
        self.awaited = None
        due = []
        while self.next_due() <= now:
            due.append(self.pop())
        for _, _, child in self._heap:
            child.ticket = 0
        self._heap.clear()
        self._waiting = 0
        return due
