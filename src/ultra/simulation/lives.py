"""Watches lives: starts, crashes, restarts and ends of actors, and the decisions of supervisors."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from ultra.simulation.cast import ActorNode, SupervisorNode
from ultra.simulation.record import TIME_ERROR

if TYPE_CHECKING:
    from ultra.simulation.cast import Node
    from ultra.simulation.mail import Mail
    from ultra.simulation.record import Record
    from ultra.supervisor.lifecycle import LifecycleEvent

__all__ = ["Lives", "leaves_of", "longest_stop"]

EXPECTED_ERRORS = ("SimulatedCrash", "InjectedFault")
"""Classes of the exceptions that the simulation makes actors crash with."""


class Lives:
    """The tree of a simulation, and whether what happens in it is what was declared."""

    def __init__(self, record: Record, mail: Mail) -> None:
        self._record = record
        self._mail = mail
        self.nodes: dict[str, Node] = {}
        self.closing = False
        self.escalated = False  # past the root
        self._reactions = {
            "starting": self._starting,
            "started": self._started,
            "crashed": self._crashed,
            "restarting": self._restarting,
            "down": self._down,
            "escalated": self._escalated,
            "revived": self._revived,
            "unresponsive": self._unresponsive,
            "stopped": self._stopped,
        }

    def add(self, node: Node) -> None:
        """A child was added to a supervisor."""
        self.nodes[node.path] = node

    # --- one actor's life ----------------------------------------------------------------------------

    def begins(self, actor: ActorNode) -> None:
        """A new incarnation is being made."""
        record = self._record
        now = self._record.now()
        record.events.append((now, "begin", actor.path, actor.incarnation + 1))
        record.check(
            7,
            not (actor.alive or actor.running),
            f"{actor.path} began anew while its old incarnation lived, with {actor.running} handlers running",
            actor.path,
        )
        self._check_siblings_ended(actor)
        self._check_begin(actor, now)
        self._count_start(actor, now)
        actor.has_begun(now)
        actor.crashed = actor.decided = actor.given_up = False
        actor.incarnation += 1
        actor.changed_at = now
        self._mail.interrupted(actor)

    def _check_siblings_ended(self, actor: ActorNode) -> None:
        """Those who are restarted with the actor have ended by now, and may even have begun anew.

        Not so where it begins for the last time, to drain its inbox: that waits for nobody.
        """
        for other, incarnation in () if actor.stop_asked else actor.renewed_with:
            self._record.check(
                7,
                other.incarnation > incarnation or not other.alive,
                f"{actor.path} began anew, and {other.path}, to be restarted with it, had not ended",
                actor.path,
                other.path,
            )
        actor.renewed_with = []

    def _check_begin(self, node: Node, now: float) -> None:
        self._record.check(
            7,
            node.may_start and not node.ended,
            f"{node.path} began anew though nothing had called for it (restart type {node.restart})",
            node.path,
        )
        # Who begins for the last time, to drain its inbox, waits for nothing.
        last = isinstance(node, ActorNode) and node.stop_asked
        self._record.check(
            8,
            last or now >= node.not_before - TIME_ERROR,
            f"{node.path} began anew before its backoff was over at {node.not_before:.3f} s",
            node.path,
        )
        node.may_start = node.must_start = node.down = False

    def _count_start(self, actor: ActorNode, now: float) -> None:
        """Restarts that really happen must not come more often than the intensity allows."""
        above = actor.parent
        if above is None or not actor.decided:
            return
        if above.strategy != "one_for_one":
            # Children that crash together begin anew by one restart: count those of this child alone.
            above = None
        starts = actor.own_starts if above is None else above.starts
        starts.append(now)
        intensity = actor.parent.intensity  # type: ignore[union-attr] # it has one
        recent = [start for start in starts if start > now - intensity.within + TIME_ERROR]
        starts[:] = recent
        self._record.check(
            6,
            len(recent) <= intensity.max_restarts,
            f"{len(recent)} restarts below {actor.parent.path} within {intensity.within:g} s; "  # type: ignore[union-attr]
            f"allowed are {intensity.max_restarts}",
            actor.path,
        )

    def crashes(self, actor: ActorNode, why: str) -> None:
        """An exception leaves the actor."""
        self._record.add("crash", actor.path, actor.incarnation, why)
        actor.crashed = True

    def ends(self, actor: ActorNode) -> None:
        """The incarnation is at its end: its on_stop has run, or its start has failed."""
        actor.alive = False
        actor.changed_at = self._record.now()

    def handler_ended(self, actor: ActorNode) -> None:
        """A handler has ended, in whatever way."""
        actor.running -= 1
        actor.changed_at = self._record.now()

    # --- what supervisors announce -------------------------------------------------------------------

    def observe(self, event: LifecycleEvent) -> None:
        """Take note of an announcement, and compare it with what is known."""
        node = self.nodes.get(event.path)
        error = type(event.error).__name__ if event.error is not None else ""
        self._record.add(event.kind, event.path, error)
        if node is not None:
            react = self._reactions.get(event.kind)
            if react is not None:
                react(node, event)

    def _starting(self, node: Node, event: LifecycleEvent) -> None:
        """A supervisor begins anew: all its children may, and nothing counts against them."""
        assert isinstance(node, SupervisorNode)
        now = event.time
        node.has_begun(now)
        self._check_begin(node, now)
        node.escalated = False
        node.restarts.clear()
        node.starts.clear()
        for child in node.children:
            child.may_start = not child.ended
            child.decided = False
            child.not_before = now
            if isinstance(child, ActorNode):
                child.own_starts.clear()

    def _started(self, node: Node, event: LifecycleEvent) -> None:
        del event
        node.must_start = False

    def _crashed(self, node: Node, event: LifecycleEvent) -> None:
        node.last_crash = event.time
        if isinstance(node, ActorNode):
            expected = all(_is_expected(error) for error in leaves_of(event.error))
            self._record.check(
                11, expected, f"{node.path} was said to have crashed by {event.error!r}", node.path
            )
            node.crashed = True

    def _restarting(self, node: Node, event: LifecycleEvent) -> None:
        above = node.parent
        assert above is not None
        now, due = event.time, event.time + (event.delay or 0.0)
        recent = above.recent_restarts(now - TIME_ERROR)
        self._record.check(
            6,
            len([began for _, began in recent if began > now - above.intensity.within + TIME_ERROR])
            < above.intensity.max_restarts,
            f"{above.path} restarts {node.name} for the {len(recent) + 1}. time within "
            f"{above.intensity.within:g} s; allowed are {above.intensity.max_restarts}",
            node.path,
        )
        self._record.check(
            7, node.restart != "temporary", f"{node.path} is temporary, yet restarted", node.path
        )
        above.restarts = [*recent, (node, inf)]
        for child in above.restarted_with(node):
            if child.restart == "temporary":
                self.stop_asked(child)
                continue
            child.may_start, child.not_before = True, due
            child.must_start = True
        node.decided = True
        if isinstance(node, ActorNode):
            node.renewed_with = above.living_with(node)

    def stop_asked(self, node: Node) -> None:
        """The node, and all below it, is to stop for good."""
        if isinstance(node, ActorNode):
            node.stop_asked = True
        elif isinstance(node, SupervisorNode):
            for child in node.children:
                self.stop_asked(child)

    def _gave_up(self, above: SupervisorNode | None, node: Node | None) -> None:
        assert above is not None
        now = self._record.now()
        recent = above.recent_restarts(now - TIME_ERROR)
        self._record.check(
            6,
            len(recent) >= above.intensity.max_restarts,
            f"{above.path} gave up after {len(recent)} restarts within {above.intensity.within:g} s; "
            f"allowed are {above.intensity.max_restarts}",
            above.path,
        )
        as_declared = above.on_excess == ("isolate" if node is not None else "escalate")
        self._record.check(6, as_declared, f"{above.path} is to {above.on_excess}, and did not", above.path)

    def _check_once(self, first: object, node: Node, what: str) -> None:
        self._record.check(6, first, f"{node.path} {what} twice for one reason", node.path)

    def _down(self, node: Node, event: LifecycleEvent) -> None:
        del event
        self._gave_up(node.parent, node)
        self._check_once(not node.down, node, "is down")
        self._take_down(node)

    def _escalated(self, node: Node, event: LifecycleEvent) -> None:
        del event
        assert isinstance(node, SupervisorNode)
        self._gave_up(node, None)
        self._check_once(not node.escalated, node, "escalated")
        node.escalated = True
        self.escalated = self.escalated or node.parent is None
        for child in node.children:
            child.may_start = False  # what was decided about them is void

    def _take_down(self, node: Node) -> None:
        node.down = True
        node.may_start = node.must_start = False
        if isinstance(node, ActorNode):
            node.crashed = False
            self._mail.actor_ended(node)
        elif isinstance(node, SupervisorNode):
            for child in node.children:
                if not child.ended:
                    self._take_down(child)

    def _revived(self, node: Node, event: LifecycleEvent) -> None:
        node.down = False
        node.may_start, node.not_before = True, event.time

    def _unresponsive(self, node: Node, _: LifecycleEvent) -> None:
        node.given_up = True

    def _stopped(self, node: Node, event: LifecycleEvent) -> None:
        self._check_once(not node.ended, node, "stopped")
        node.ended = True
        node.has_begun(event.time)  # or rather never will
        node.may_start = node.must_start = False
        if isinstance(node, ActorNode):
            self._mail.actor_ended(node)

    # --- at rest -------------------------------------------------------------------------------------

    def check_at_rest(self) -> None:
        """Nothing has gone on for long: all that was to be restarted has been, and nobody was forgotten."""
        for node in self.nodes.values():
            if self.is_gone(node) or self.crashed_since(node, self._record.now() - LONGEST_RESTART):
                continue
            self._record.check(
                7, not node.must_start, f"{node.path} was to be restarted, and was not", node.path
            )
            if isinstance(node, ActorNode):
                self._record.check(
                    10, not node.crashed, f"{node.path} crashed, and nothing came of it", node.path
                )

    def crashed_since(self, node: Node | None, since: float) -> bool:
        """Whether the node, or anything that might restart it, has crashed since then."""
        while node is not None:
            around = node.parent.children if node.parent is not None else ()
            if node.last_crash >= since or any(other.last_crash >= since for other in around):
                return True
            node = node.parent
        return False

    def is_gone(self, node: Node | None) -> bool:
        """Whether the node, or a supervisor above it, is down or has ended."""
        while node is not None:
            if node.ended or node.down or (isinstance(node, SupervisorNode) and node.escalated):
                return True
            node = node.parent
        return False

    def longest_stop(self) -> float:
        """Seconds that stopping all actors may take: grace periods, times for on_stop, allowances."""
        return sum(longest_stop(node) for node in self.nodes.values() if isinstance(node, ActorNode))


LONGEST_RESTART = 20.0
"""Virtual seconds in which every restart has happened: backoff, and others that stop and start first."""

STUBBORN = 2.0
"""Seconds for which a handler of the simulation ignores cancellation, at most."""


def longest_stop(actor: ActorNode, grace: float | None = None) -> float:
    """Seconds that stopping one actor may take."""
    options = actor.options
    return (options.grace if grace is None else grace) + options.stop_timeout + 1.0 + STUBBORN


def leaves_of(error: BaseException | None) -> list[BaseException]:
    """The exceptions inside, without the groups around them."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves_of(inner)]
    return [error] if error is not None else []


def _is_expected(error: BaseException) -> bool:
    if type(error).__name__ in EXPECTED_ERRORS:
        return True
    text = str(error)
    if isinstance(error, TimeoutError):
        return text.startswith(("on_start took", "on_stop took"))
    return isinstance(error, RuntimeError) and text == "it finished, and is permanent"
