"""The cast of a simulation, as the record knows it: messages, actors, supervisors."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from ultra.actors.runtime.actor import ActorOptions, ActorRef
    from ultra.supervisor.spec import Backoff, OnExcess, Restart, RestartIntensity, Strategy

__all__ = ["ActorNode", "MessageNode", "Node", "SupervisorNode"]


class MessageNode:
    """One message: who sent it to whom, and all that became of it."""

    __slots__ = (
        "abandoned",
        "actor",
        "answered",
        "copies",
        "dead",
        "deadline",
        "done",
        "high_when_interrupted",
        "id",
        "in_hand",
        "incarnation",
        "lost",
        "refused",
        "sender",
        "sent_at",
        "system",
        "takes",
        "unsure",
    )

    def __init__(self, number: int, actor: ActorNode, sender: int, sent_at: float, *, system: bool) -> None:
        self.id = number
        self.actor = actor
        self.sender = sender
        self.sent_at = sent_at
        self.system = system
        self.deadline = inf  # when whoever sent it gives up
        self.incarnation = 0  # that had it in hand last
        self.in_hand = False
        self.takes = 0  # how often it was taken out of the inbox
        self.high_when_interrupted = 0
        self.done = 0
        self.refused = 0
        self.dead = 0
        self.copies = 1
        self.answered = False  # the ask has ended, in whatever way
        self.abandoned = False  # ... with nobody waiting any more
        self.lost = False  # on its way, by a fault
        self.unsure = False  # whether it was accepted: the ask ended with an error that leaves it open


class Node:
    """An actor or a supervisor in the tree."""

    __slots__ = (
        "decided",
        "down",
        "ended",
        "given_up",
        "last_crash",
        "may_start",
        "must_start",
        "name",
        "not_before",
        "parent",
        "path",
        "position",
        "restart",
    )

    def __init__(self, name: str, parent: SupervisorNode | None, restart: Restart) -> None:
        self.name = name
        self.parent = parent
        self.path: str = f"{parent.path}/{name}" if parent is not None else ""
        self.position = len(parent.children) if parent is not None else 0
        self.restart = restart
        self.down = False
        self.ended = False
        self.given_up = False  # it takes too long to end, so those who wait for that are told already
        self.may_start = True  # it may begin, for the first time, or anew since that was decided
        self.decided = False  # its supervisor decided to restart it, for itself
        self.last_crash = -inf
        self.must_start = False
        self.not_before = 0.0
        if parent is not None:
            parent.children.append(self)

    @property
    def is_down_for_now(self) -> bool:
        """Whether the node is down, and may be revived."""
        return self.down and not self.ended

    def has_begun(self, now: float) -> None:
        """The node has begun anew, if it was to."""
        restarts = self.parent.restarts if self.parent is not None else []
        restarts[:] = [(child, now if child is self and began == inf else began) for child, began in restarts]


class SupervisorNode(Node):
    """A supervisor, and the restarts that it decided on (when they are due)."""

    __slots__ = (
        "backoff",
        "children",
        "escalated",
        "intensity",
        "on_excess",
        "restarts",
        "starts",
        "strategy",
    )

    def __init__(
        self,
        name: str,
        parent: SupervisorNode | None,
        *,
        strategy: Strategy,
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
        # Those that were decided on: who began anew and when, infinity as long as it has not.
        self.restarts: list[tuple[Node, float]] = []
        self.starts: list[float] = []  # when children that had crashed really began anew

    def actors(self) -> list[ActorNode]:
        """All actors below, in the order of their start."""
        below: list[ActorNode] = []
        for child in self.children:
            if isinstance(child, ActorNode):
                below.append(child)
            elif isinstance(child, SupervisorNode):
                below += child.actors()
        return below

    def recent_restarts(self, now: float) -> list[tuple[Node, float]]:
        """The restarts that count against the intensity."""
        since = now - self.intensity.within
        return [restart for restart in self.restarts if restart[1] >= since]

    def living_with(self, child: Node) -> list[tuple[ActorNode, int]]:
        """The living actors, and their incarnations, that must end before `child` begins anew."""
        members = (other for other in self.restarted_with(child) if other is not child)
        actors = (
            actor
            for other in members
            for actor in (other.actors() if isinstance(other, SupervisorNode) else (other,))
        )
        return [
            (actor, actor.incarnation) for actor in actors if isinstance(actor, ActorNode) and actor.alive
        ]

    def restarted_with(self, child: Node) -> list[Node]:
        """The children that the strategy restarts with `child`, itself included."""
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
        "first_high",
        "hung",
        "in_hand",
        "incarnation",
        "incarnation_high",
        "options",
        "outstanding",
        "overloaded_at",
        "own_starts",
        "ref",
        "renewed_with",
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
        self.alive = False  # its start has run, or a message was taken, and its on_stop has not
        self.crashed = False  # since its last start
        self.changed_at = 0.0  # when something happened that lets a message be taken
        self.in_hand: dict[int, MessageNode] = {}
        self.outstanding: dict[int, MessageNode] = {}  # user messages accepted for sure and not finished
        self.entering: dict[int, MessageNode] = {}  # ... and those that may still wait for room
        self.system_waiting: dict[int, MessageNode] = {}
        self.first_high: dict[tuple[int, bool], int] = {}  # of each sender and lane: newest ever taken
        self.incarnation_high: dict[tuple[int, bool], int] = {}  # ... by this incarnation
        self.crowded = False  # its inbox had messages of the plan's own, which the record does not see
        self.slowed = False  # ... and they took time
        self.hung = 0  # the incarnation that has a handler which never ends
        self.stop_asked = False
        # Those who are to be restarted with it, and were alive in this incarnation when that was decided.
        self.renewed_with: list[tuple[ActorNode, int]] = []
        self.own_starts: list[float] = []
        self.overloaded_at = -inf

    @property
    def most_load(self) -> int:
        """How many user messages may be in the inbox, or waiting for room in it, at the most."""
        return len(self.outstanding) + len(self.entering)

    def note_load(self) -> None:
        """Remember when more messages came than the inbox takes."""
        if self.most_load > self.options.capacity:
            self.overloaded_at = trio.current_time()
