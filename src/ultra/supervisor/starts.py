"""Which children are to be started, and when."""

from __future__ import annotations

import heapq
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ultra.supervisor.child import Child

__all__ = ["StartQueue"]


class StartQueue:
    """Children by the time [s] when their start is due; of equal times, by the order of scheduling.

    A child has one place in it: to schedule it again is to move it.
    """

    def __init__(self) -> None:
        # What the heap has of a child counts only if it bears the child's newest ticket: to move a child
        # leaves its old entry behind, to be dropped when it comes to the top.
        self._heap: list[tuple[float, int, Child]] = []
        self._tickets = 0

    def schedule(self, child: Child, due: float) -> None:
        """Let `child` start at `due`, and no longer at any other time."""
        self._tickets += 1
        child.ticket = self._tickets
        child.due = due
        heapq.heappush(self._heap, (due, self._tickets, child))

    @staticmethod
    def cancel(child: Child) -> None:
        """Do not start `child`."""
        child.ticket = 0

    @staticmethod
    def due(child: Child) -> float:
        """When `child` is to be started; minus infinity when it is not."""
        return child.due if child.ticket else -inf

    def next_due(self) -> float:
        """When the next start is due; infinity when there is none."""
        heap = self._heap
        while heap and heap[0][2].ticket != heap[0][1]:
            heapq.heappop(heap)
        return heap[0][0] if heap else inf

    def pop(self) -> Child:
        """Take out the child that `next_due` spoke of."""
        child = heapq.heappop(self._heap)[2]
        child.ticket = 0
        return child

    def clear(self) -> None:
        """Start nobody."""
        for _, _, child in self._heap:
            child.ticket = 0
        self._heap.clear()
