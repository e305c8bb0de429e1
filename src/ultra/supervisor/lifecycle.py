"""Lifecycle events: one for each start, crash, restart and end of an actor or a supervisor."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Literal

import trio
from msgspec import Struct

from ultra._support.log import Level, get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Lifecycle", "LifecycleEvent", "LifecycleKind"]

LifecycleKind = Literal[
    "starting", "started", "crashed", "restarting", "stopped", "down", "revived", "escalated", "unresponsive"
]
"""What happened to an actor or a supervisor.

A supervisor is "starting" before its children start, and "started" once they have.
"""

_LEVELS: Final[dict[LifecycleKind, Level]] = {
    "starting": "debug",
    "started": "debug",
    "crashed": "error",
    "restarting": "warning",
    "stopped": "debug",
    "down": "critical",
    "revived": "info",
    "escalated": "critical",
    "unresponsive": "critical",
}

log = get_logger("ultra.supervisor")


class LifecycleEvent(Struct, frozen=True):
    """Say that `kind` happened to the child at `path`, at `time` (`trio.current_time()`).

    `delay` is the backoff before a restart [s].
    """

    kind: LifecycleKind
    path: str
    time: float
    error: Exception | None = None
    delay: float | None = None


class Lifecycle:
    """Log every event and hand it to the observers."""

    def __init__(self) -> None:
        self._observers: list[Callable[[LifecycleEvent], None]] = []

    @contextmanager
    def observe(self, observer: Callable[[LifecycleEvent], None]) -> Iterator[None]:
        """Call `observer` with each event, in order, while the block runs.

        It is called in the middle of the supervisor's work and must return at once; an exception that
        leaves it is logged and has no other effect.
        """
        self._observers.append(observer)
        try:
            yield
        finally:
            self._observers.remove(observer)

    def emit(
        self,
        kind: LifecycleKind,
        path: str,
        error: Exception | None = None,
        delay: float | None = None,
    ) -> None:
        """Log one event, and hand it to the observers."""
        level = _LEVELS[kind]
        if log.enabled(level):
            title = f"actor {kind}"
            details: dict[str, object] = {}
            if error is not None:
                details["error"] = f"{type(error).__name__}: {error}"
            if delay is not None:
                details["delay"] = round(delay, 3)
            if kind == "crashed":
                details["exc_info"] = error
            log.log(level, title, path=path, **details)
        if not self._observers:
            return
        event = LifecycleEvent(kind, path, trio.current_time(), error, delay)
        for observer in tuple(self._observers):
            try:
                observer(event)
            except Exception:  # an observer must not bring down what it observes
                log.exception("lifecycle observer failed", path=path)
