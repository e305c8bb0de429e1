"""A cancel scope for one section after the other of what a task does, entered once for all of them.

To enter and leave a cancel scope costs about 8 µs. A worker handles one message after the other, and
hardly any of them is cancelled: so its scope stays, and is replaced by a new one only when a section was
cancelled.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Self

import trio
from trio.lowlevel import enable_ki_protection

from ultra.errors import BadCall, UsageError

if TYPE_CHECKING:
    from types import TracebackType

    from ultra.actors.runtime.timekeeper import Timekeeper

__all__ = ["Section", "SectionedScope"]


class SectionedScope:
    """A context manager around all that a task does, of which sections can be cancelled, one at a time.

    A section begins and ends in the task that entered this, outside of every scope and nursery that the
    task has opened since. Its own are entered and left as a ``with`` block does.

    Attributes:
        entered: the scope that cancels the section that goes on; None before and after the block.
        current: the section that goes on, if there is one.
        timekeeper: cancels sections at their deadlines.
    """

    __slots__ = ("current", "entered", "timekeeper")

    def __init__(self, timekeeper: Timekeeper) -> None:
        self.timekeeper = timekeeper
        self.entered: trio.CancelScope | None = None
        self.current: Section | None = None

    def section(self, deadline: float = inf) -> Section:
        """A section that is cancelled at `deadline` (`trio.current_time`), or by its `cancel`."""
        return Section(self, deadline)

    # Protected: a KeyboardInterrupt between two lines would leave trio's scopes nested in the wrong way.
    @enable_ki_protection
    def __enter__(self) -> Self:
        self.entered = trio.CancelScope()
        self.entered.__enter__()
        return self

    @enable_ki_protection
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        spent, self.entered = self.entered, None
        return False if spent is None else spent.__exit__(kind, error, trace)

    @enable_ki_protection
    def replace(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Leave the scope, which was cancelled, with this exception, and enter a new one.

        Returns whether it was the scope's own cancellation: trio decides that.
        """
        try:
            return self.__exit__(kind, error, trace)
        finally:
            self.__enter__()


class Section:
    """One section; a context manager that swallows its own cancellation, as `trio.CancelScope` does.

    Cancelled before it is entered, it begins cancelled; one whose deadline has passed by then is cancelled
    at the second checkpoint at the latest. Once it was left, nothing has an effect any more.

    Attributes:
        cancel_called: whether it was cancelled, by `cancel` or at its deadline, in time or too late.

    Raises:
        BadCall: the deadline is not a number.
    """

    __slots__ = ("_deadline", "_entered", "_whole", "cancel_called")

    def __init__(self, whole: SectionedScope, deadline: float) -> None:
        self._whole = whole
        self._deadline = _checked(deadline)
        self._entered = False
        self.cancel_called = False

    @property
    def deadline(self) -> float:
        """When the section is cancelled (`trio.current_time`); may be moved while it goes on."""
        return self._deadline

    @deadline.setter
    def deadline(self, deadline: float) -> None:
        self._deadline = _checked(deadline)
        whole = self._whole
        if whole.current is not self:
            return
        if deadline == inf:
            whole.timekeeper.forget(self)
        else:
            whole.timekeeper.watch(self)

    def cancel(self) -> None:
        """Cancel what goes on in the section."""
        whole = self._whole
        if whole.current is self:
            self.cancel_called = True
            if whole.entered is not None:
                whole.entered.cancel()
        elif not self._entered:
            self.cancel_called = True

    def __enter__(self) -> Self:
        whole = self._whole
        if whole.entered is None:
            raise UsageError("a section can be entered only inside the scope that it is a section of")
        if whole.current is not None or self._entered:
            raise UsageError("sections follow each other in their task, and each is entered once")
        self._entered = True
        whole.current = self
        if self._deadline != inf:
            whole.timekeeper.watch(self)
        if self.cancel_called:
            whole.entered.cancel()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        whole = self._whole
        whole.current = None
        if self._deadline != inf:
            whole.timekeeper.forget(self)
        return whole.replace(kind, error, trace) if self.cancel_called else False


def _checked(deadline: float) -> float:
    if not deadline <= inf:
        raise BadCall(f"the deadline is {deadline!r}; it must be a time, or infinite")
    return deadline
