"""A cancel scope for one section after the other of what a task does, entered once for all of them.

To enter and leave a cancel scope costs about 8 µs. A worker handles one message after the other, and
hardly any of them is cancelled: so its scope stays, and is replaced by a new one only when a section was
cancelled.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Self

import trio

if TYPE_CHECKING:
    from types import TracebackType

    from ultra.actors.timekeeper import Timekeeper

__all__ = ["Section", "SectionedScope"]


class SectionedScope:
    """A context manager around all that a task does, of which sections can be cancelled, one at a time.

    A section must be left in the task that entered it, with every scope and nursery closed that was
    opened in it: that is what a ``with`` block does.

    Attributes:
        scope: what is entered now, and cancels the section that goes on.
        current: the section that goes on, if there is one.
        timekeeper: cancels sections at their deadlines.
    """

    __slots__ = ("current", "scope", "timekeeper")

    def __init__(self, timekeeper: Timekeeper) -> None:
        self.timekeeper = timekeeper
        self.scope = trio.CancelScope()
        self.current: Section | None = None

    def __enter__(self) -> Self:
        self.scope.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        return self.scope.__exit__(kind, error, trace)

    def section(self, deadline: float = inf) -> Section:
        """A section that is cancelled at `deadline` (`trio.current_time`), or by its `cancel`."""
        return Section(self, deadline)

    def replace(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Leave the scope, which was cancelled, with this exception, and enter a new one.

        Returns whether it was the scope's own cancellation: trio decides that.
        """
        spent, self.scope = self.scope, trio.CancelScope()
        try:
            return spent.__exit__(kind, error, trace)
        finally:
            self.scope.__enter__()


class Section:
    """One section; a context manager that swallows its own cancellation, as `trio.CancelScope` does.

    Cancelled before it is entered, it begins cancelled; once it was left, nothing has an effect any more.

    Attributes:
        cancel_called: whether it was cancelled, by `cancel` or at its deadline, in time or too late.
    """

    __slots__ = ("_deadline", "_whole", "cancel_called")

    def __init__(self, whole: SectionedScope, deadline: float) -> None:
        self._whole = whole
        self._deadline = deadline
        self.cancel_called = False

    @property
    def deadline(self) -> float:
        """When the section is cancelled (`trio.current_time`); may be moved while it goes on."""
        return self._deadline

    @deadline.setter
    def deadline(self, deadline: float) -> None:
        self._deadline = deadline
        if self._whole.current is self:
            self._whole.timekeeper.watch(self)

    def cancel(self) -> None:
        """Cancel what goes on in the section."""
        self.cancel_called = True
        if self._whole.current is self:
            self._whole.scope.cancel()

    def __enter__(self) -> Self:
        whole = self._whole
        if whole.current is not None:
            raise RuntimeError("a section of this task goes on already; the next one begins when it is left")
        whole.current = self
        if self._deadline != inf:
            whole.timekeeper.watch(self)
        if self.cancel_called:
            whole.scope.cancel()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        whole = self._whole
        whole.current = None
        if self._deadline != inf:
            whole.timekeeper.forget(self)
        return whole.replace(kind, error, trace) if self.cancel_called else False
