"""The children of one supervisor, and whether it takes more of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ultra.actors.runtime.status import ActorState
from ultra.errors import ActorDown, ActorStopped
from ultra.supervisor.child import Phase

if TYPE_CHECKING:
    from ultra.supervisor.child import Child

__all__ = ["Roster"]


class Roster:
    """The children of the supervisor at `path`, in the order in which they were added."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.children: dict[str, Child] = {}
        self.state = ActorState.STARTING
        self.closed = False  # for good: no child is taken in, and none lives again
        self.ended = trio.Event()
        self.failure: Exception | None = None  # what is escalated, or what took this supervisor down
        self.restarts = 0

    def refuse(self) -> None:
        """Raise `ActorStopped`, or `ActorDown`, when this supervisor takes no children."""
        if self.closed:
            raise ActorStopped(self.path or "/")
        if self.state is ActorState.DOWN:
            raise ActorDown(self.path, self.failure)

    def revive_children(self) -> None:
        """Take messages and children again after the end of all; they live when this supervisor does."""
        self.state = ActorState.STARTING
        for child in self.children.values():
            child.phase = Phase.WAITING
            child.revive()

    def has_messages(self) -> bool:
        """Whether messages wait for any actor below this supervisor."""
        return any(child.has_messages() for child in self.children.values())

    def stop_bound(self, grace: float | None) -> float:
        """The most seconds that the children may take to stop, one after the other."""
        return sum(child.stop_bound(grace) for child in self.children.values())
