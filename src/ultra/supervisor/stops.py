"""Which children are to be stopped, one after the other, and how."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from msgspec import Struct

from ultra.supervisor.child import Phase

if TYPE_CHECKING:
    from ultra.supervisor.child import Child

__all__ = ["StopQueue", "StopTerms"]


class StopTerms(Struct, frozen=True):
    """How children are to be stopped: within `grace` seconds (None: each within its own), drained or not."""

    grace: float | None = None
    drain: bool = False

    def hastened(self, other: StopTerms) -> StopTerms:
        """What remains when both were asked for: no more time than either gives."""
        graces = [grace for grace in (self.grace, other.grace) if grace is not None]
        return StopTerms(min(graces, default=None), self.drain and other.drain)


class StopQueue:
    """Children in the order in which they are to be stopped: each when the one before it has ended."""

    __slots__ = ("_current", "_waiting")

    def __init__(self) -> None:
        self._waiting: OrderedDict[Child, None] = OrderedDict()
        self._current: Child | None = None

    def __bool__(self) -> bool:
        """Whether any child waits for its turn, or is being stopped in its turn."""
        return bool(self._waiting) or self._is_busy()

    def __contains__(self, child: Child) -> bool:
        """Whether `child` still waits for its turn."""
        return child in self._waiting

    def add(self, child: Child) -> None:
        """Stop `child` after those added before it."""
        self._waiting[child] = None

    def cancel(self, child: Child) -> None:
        """Do not stop `child`, if its turn has not come."""
        self._waiting.pop(child, None)

    def clear(self) -> None:
        """Stop nobody whose turn has not come."""
        self._waiting.clear()

    def pop(self) -> Child | None:
        """The child whose turn has come; None while the last one still stops, and when none is left."""
        if self._is_busy():
            return None
        self._current = self._waiting.popitem(last=False)[0] if self._waiting else None
        return self._current

    def _is_busy(self) -> bool:
        return self._current is not None and self._current.phase is Phase.STOPPING
