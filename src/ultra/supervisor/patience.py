"""How long a supervisor waits for its children to start, or to end, before it gives them up."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ultra.supervisor.child import Child

__all__ = ["Patience"]


class Patience:
    """Children that are busy with something that is to take no longer than until their `give_up_at`."""

    __slots__ = ("_children",)

    def __init__(self) -> None:
        self._children: dict[Child, None] = {}

    def __bool__(self) -> bool:
        return bool(self._children)

    def bound(self, child: Child, give_up_at: float) -> None:
        """Wait for `child` until `give_up_at`."""
        child.give_up_at = give_up_at
        self._children[child] = None

    def release(self, child: Child) -> None:
        """`child` has done what it was waited for."""
        self._children.pop(child, None)

    def next_end(self) -> float:
        """When the next child is to be given up; infinity when none is."""
        return min((child.give_up_at for child in self._children), default=inf)

    def lose(self, now: float) -> list[Child]:
        """Take out those that took too long."""
        lost = [child for child in self._children if child.give_up_at <= now]
        for child in lost:
            del self._children[child]
        return lost
