"""What the simulation knows of each actor and supervisor in the tree."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Literal

import trio

from ultra.actors.runtime.status import ActorState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ultra.actors.runtime.actor import ActorOptions, ActorRef
    from ultra.simulation.actor_system.message_ledger import MessageEntry
    from ultra.supervisor.spec import Backoff, OnExcess, Restart, RestartIntensity, RestartStrategy

__all__ = ["ActorNode", "Life", "Node", "SupervisorNode"]

Life = Literal["none", "begun", "starting", "running"]
"""Where a node is in its current life: "begun" is an actor whose on_start has not been called yet."""


class Node:
    """An actor or a supervisor in the tree."""

    __slots__ = (
        "down",
        "ended",
        "first_start_open",
        "last_crash",
        "life",
        "may_start",
        "must_start",
        "name",
        "not_before",
        "parent",
        "path",
        "position",
        "restart",
        "restart_decided",
        "shown_without_life",
        "unresponsive",
    )

    def __init__(self, name: str, parent: SupervisorNode | None, restart: Restart) -> None:
        self.name = name
        self.parent = parent
        self.path: str = f"{parent.path}/{name}" if parent is not None else ""
        self.position = len(parent.children) if parent is not None else 0
        self.restart = restart
        self.down = False
        self.ended = False
        self.life: Life = "none"
        self.shown_without_life = ActorState.STARTING  # the state to be shown while it has no life
        # In this life of its supervisor, it has neither started for the first time nor failed to.
        self.first_start_open = True
        self.unresponsive = False  # it takes too long to end, so its watchers may have been told already
        self.may_start = True  # its first start, or a restart that was decided, is still to come
        self.must_start = False  # a restart that was decided is still to come
        self.not_before = 0.0  # when the backoff of that restart is over
        self.restart_decided = False  # by its supervisor, after a crash of this node itself
        self.last_crash = -inf
        if parent is not None:
            parent.children.append(self)

    @property
    def is_down_for_now(self) -> bool:
        """Whether the node is down, and may be revived."""
        return self.down and not self.ended

    def subtree(self) -> Iterator[Node]:
        """Yield this node, and all below it."""
        yield self

    def actors(self) -> list[ActorNode]:
        """Return this actor, or all actors below this supervisor in the order of their start."""
        return [node for node in self.subtree() if isinstance(node, ActorNode)]

    def is_leaving(self) -> bool:
        """Return whether all actors here were asked to stop for good."""
        return all(actor.stop_asked for actor in self.actors())

    def has_no_life(self) -> bool:
        """Return whether no actor here has a life."""
        return all(actor.life == "none" for actor in self.actors())

    def note_begin(self, now: float) -> None:
        """Note that the node has begun a new life: a restart that was decided has happened."""
        if self.parent is not None:
            self.parent.restarts[:] = [
                (child, now if child is self and began == inf else began)
                for child, began in self.parent.restarts
            ]


class SupervisorNode(Node):
    """A supervisor, and the restarts that it decided on.

    Attributes:
        restarts: each restart that was decided: the child, and when it began again; infinity until then.
        restarts_done: when children that had crashed really began again.
    """

    __slots__ = (
        "backoff",
        "children",
        "escalated",
        "intensity",
        "on_excess",
        "restarts",
        "restarts_done",
        "strategy",
    )

    def __init__(
        self,
        name: str,
        parent: SupervisorNode | None,
        *,
        strategy: RestartStrategy,
        intensity: RestartIntensity,
        on_excess: OnExcess,
        restart: Restart,
        backoff: Backoff,
    ) -> None:
        self.children: list[Node] = []
        super().__init__(name, parent, restart)
        self.strategy = strategy
        self.intensity = intensity
        self.on_excess = on_excess
        self.backoff = backoff
        self.escalated = False
        self.restarts: list[tuple[Node, float]] = []
        self.restarts_done: list[float] = []

    def subtree(self) -> Iterator[Node]:
        """Yield this node, and all below it, each supervisor before its children."""
        yield self
        for child in self.children:
            yield from child.subtree()

    def recent_restarts(self, now: float) -> list[tuple[Node, float]]:
        """Return the restarts that count against the intensity."""
        since = now - self.intensity.within
        return [restart for restart in self.restarts if restart[1] >= since]

    def alive_with(self, child: Node) -> list[tuple[ActorNode, int]]:
        """Return the living actors that must end before `child` begins again, with their incarnations."""
        return [
            (actor, actor.incarnation)
            for other in self.restarted_with(child)
            if other is not child
            for actor in other.actors()
            if actor.alive
        ]

    def restarted_with(self, child: Node) -> list[Node]:
        """Return the children that the strategy restarts when `child` crashes, itself included."""
        if self.strategy == "one_for_one":
            return [child]
        return [
            other
            for other in self.children
            if not (other.ended or other.down)
            and (self.strategy == "one_for_all" or other.position >= child.position)
        ]


class ActorNode(Node):
    """An actor through all its incarnations."""

    __slots__ = (
        "alive",
        "backoff",
        "changed_at",
        "crashed",
        "crowded",
        "entering",
        "hung",
        "in_flight",
        "incarnation",
        "must_end_before",
        "newest_first_delivery",
        "newest_of_incarnation",
        "options",
        "outstanding",
        "overloaded_at",
        "own_restarts",
        "ref",
        "running",
        "slowed",
        "stop_asked",
        "system_waiting",
    )

    ref: ActorRef

    def __init__(
        self, name: str, parent: SupervisorNode, *, options: ActorOptions, restart: Restart, backoff: Backoff
    ) -> None:
        super().__init__(name, parent, restart)
        self.options = options
        self.backoff = backoff
        self.incarnation = 0
        self.running = 0  # handlers
        self.alive = False  # from its on_start, or its first message, to the end of its on_stop
        self.crashed = False  # since its last start
        self.changed_at = 0.0  # when something happened that lets a message be taken
        self.in_flight: dict[int, MessageEntry] = {}
        self.outstanding: dict[int, MessageEntry] = {}  # user messages surely accepted and not finished
        self.entering: dict[int, MessageEntry] = {}  # user messages that may still wait for room
        self.system_waiting: dict[int, MessageEntry] = {}
        # By sender and lane: the newest message that was ever delivered for the first time, and the newest
        # that this incarnation has taken.
        self.newest_first_delivery: dict[tuple[int, bool], int] = {}
        self.newest_of_incarnation: dict[tuple[int, bool], int] = {}
        self.crowded = False  # its inbox had messages that the fault plan made, which no ledger sees
        self.slowed = False  # ... and handling them took time
        self.hung = 0  # the incarnation that has a handler which never ends
        self.stop_asked = False
        # The actors that are restarted with it, and were alive in this incarnation when that was decided.
        self.must_end_before: list[tuple[ActorNode, int]] = []
        self.own_restarts: list[float] = []
        self.overloaded_at = -inf

    @property
    def max_load(self) -> int:
        """The most user messages that may be in the inbox, or may wait for room in it."""
        return len(self.outstanding) + len(self.entering)

    def note_load(self) -> None:
        """Note the time if there may be more messages than the inbox has room for."""
        if self.max_load > self.options.capacity:
            self.overloaded_at = trio.current_time()
