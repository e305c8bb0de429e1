"""The interface of views, which show a run to the user."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from types import TracebackType

    from ultra.messages.events import Event
    from ultra.messages.results import OrchestrationResult

__all__ = ["View"]


class View(Protocol):
    """A view of one run: inside its block it gets the events, and after it the result, if there is one.

    At the end of the block, the terminal is as it was before, also after an error or Ctrl-C.
    """

    interval: float
    """Seconds between two calls of `refresh`."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, event: Event) -> None:
        """Show one event."""
        ...

    def refresh(self) -> None:
        """Show what time has changed."""
        ...

    def conclude(self, result: OrchestrationResult) -> None:
        """Show the result, once everything is closed."""
        ...
