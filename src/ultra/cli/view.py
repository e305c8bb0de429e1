"""What shows a run to somebody."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from types import TracebackType

    from ultra.messages.events import Event
    from ultra.messages.results import OrchestrationResult

__all__ = ["View"]


class View(Protocol):
    """Entered, it gets the events of one run, and, if that did not fail, its result.

    Left, however that comes about, the terminal is as it was.
    """

    interval: float
    """Seconds between two calls of `refresh`."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, event: Event) -> None:
        """Take notice of one event."""
        ...

    def refresh(self) -> None:
        """Show what time has changed."""
        ...

    def conclude(self, result: OrchestrationResult) -> None:
        """Show what the run came to, once everything is closed."""
        ...
