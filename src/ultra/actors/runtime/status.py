"""What can be seen of an actor from outside: its state, its counters, its end."""

from __future__ import annotations

from enum import Enum

from msgspec import Struct, field

from ultra.errors.values import ErrorValue, exception_of

__all__ = ["ActorSnapshot", "ActorState", "Counts", "Terminated"]


class ActorState(Enum):
    """The state of an actor or a supervisor."""

    STARTING = "starting"
    RUNNING = "running"
    RESTARTING = "restarting"
    STOPPING = "stopping"
    STOPPED = "stopped"
    DOWN = "down"


class ActorSnapshot(Struct, frozen=True, kw_only=True, tag="actor"):
    """One actor at one moment.

    sent = handled + failed + rejected + dead_lettered + queued + in_flight. `queued` counts the
    messages that wait in the inbox or for room in it; `failed` are those answered with a `Failure`;
    `last_error` is the newest crash, as text.
    """

    name: str
    path: str
    state: ActorState
    queued: int
    in_flight: int
    sent: int
    handled: int
    failed: int
    rejected: int
    dead_lettered: int
    redelivered: int
    restarts: int
    last_error: str | None


class Terminated(Struct, frozen=True):
    """How an actor ended: stopped for good, or down after `error`.

    Like a reply, this is a value: `error_value` is what another process would be told of the error.
    """

    path: str
    state: ActorState
    error_value: ErrorValue | None = field(default=None, name="error")

    @property
    def error(self) -> Exception | None:
        """The last crash, or an `ActorUnresponsive`; None if the actor ended without one."""
        return exception_of(self.error_value)


class Counts:
    """Count what became of the messages sent to one actor."""

    __slots__ = ("dead_lettered", "failed", "handled", "redelivered", "rejected", "sent")

    def __init__(self) -> None:
        self.sent = self.handled = self.failed = 0
        self.rejected = self.dead_lettered = self.redelivered = 0
