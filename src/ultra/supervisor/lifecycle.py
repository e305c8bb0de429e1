"""Lifecycle events: one for each start, crash, restart and end of an actor or a supervisor."""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

import trio
from msgspec import Struct, field

from ultra._support.log import Level, get_logger
from ultra.errors import title_of
from ultra.errors.values import ErrorValue, exception_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

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

log = get_logger("ultra.supervisor", ownerless=True)


class LifecycleEvent(Struct, frozen=True):
    """Say that `kind` happened to the child at `path`, at `time` (`trio.current_time()`).

    `delay` is the backoff before a restart [s]. An event is a value: `error_value` is what another process
    would be told of the error.
    """

    kind: LifecycleKind
    path: str
    time: float
    error_value: ErrorValue | None = field(default=None, name="error")
    delay: float | None = None

    @property
    def error(self) -> Exception | None:
        """The crash, or what else led to the event; None if there was nothing of the kind."""
        return exception_of(self.error_value)


class Lifecycle:
    """Log every event and hand it to the observers.

    Handlers of logs and observers are anybody's code, which may stop, revive or spawn children. So no event
    reaches them in the middle of a decision: the supervision loop decides within blocks of this object, and
    events wait until the outermost of them is left::

        with lifecycle:
            lifecycle.emit("crashed", child.path, error)
            ...  # what follows from the crash
    """

    def __init__(self) -> None:
        self._observers: list[Callable[[LifecycleEvent], None]] = []
        self._waiting: deque[LifecycleEvent] = deque()
        self._decisions = 0  # how many are open, one within the other
        self._telling = False

    @contextmanager
    def observe(self, observer: Callable[[LifecycleEvent], None]) -> Iterator[None]:
        """Call `observer` with each event, in order, while the block runs.

        It is called in the supervisor's own task, between two of its steps, and must return at once. It may
        stop, revive and spawn actors; an exception that leaves it is logged and has no other effect.
        """
        entry = partial(observer)  # one may be given twice, and may compare as it likes
        self._observers.append(entry)
        try:
            yield
        finally:
            self._observers = [other for other in self._observers if other is not entry]

    def __enter__(self) -> None:
        self._decisions += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._decisions -= 1
        if self._waiting:
            self._tell()

    def emit(
        self,
        kind: LifecycleKind,
        path: str,
        error: Exception | None = None,
        delay: float | None = None,
    ) -> None:
        """Log one event and hand it to the observers, as soon as no decision is under way."""
        if self._observers or log.enabled(_LEVELS[kind]):
            told = None if error is None else ErrorValue.of(error)
            self._waiting.append(LifecycleEvent(kind, path, trio.current_time(), told, delay))
            self._tell()

    def _tell(self) -> None:
        if self._decisions or self._telling:
            return
        self._telling = True  # what an observer itself brings about comes after what it is told now
        try:
            while self._waiting:
                event = self._waiting.popleft()
                _write(event)
                for observer in tuple(self._observers):
                    try:
                        observer(event)
                    except (Exception, trio.Cancelled):  # it must not bring down what it observes
                        log.exception("lifecycle observer failed", path=event.path)
        finally:
            self._telling = False


def _write(event: LifecycleEvent) -> None:
    level = _LEVELS[event.kind]
    if not log.enabled(level):
        return
    details: dict[str, object] = {}
    if event.error is not None:
        details["error"] = title_of(event.error)
    if event.delay is not None:
        details["delay"] = round(event.delay, 3)
    if event.kind == "crashed":
        details["exc_info"] = event.error
    title = f"actor {event.kind}"
    log.log(level, title, path=event.path, **details)
