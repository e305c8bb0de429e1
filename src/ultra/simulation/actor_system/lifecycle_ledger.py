"""The ledger of lives: starts, crashes, restarts and ends of actors, and the decisions of supervisors.

Actors tell it when they begin, crash and end; the runtime's lifecycle events tell it what supervisors
decide. It checks guarantees 6 to 8, 10 and 11.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from ultra.actors.runtime.status import ActorSnapshot, ActorState
from ultra.simulation.actor_system.nodes import ActorNode, SupervisorNode
from ultra.simulation.record import TIME_TOLERANCE, leaves_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ultra.simulation.actor_system.message_ledger import MessageLedger
    from ultra.simulation.actor_system.nodes import Node
    from ultra.simulation.record import Record
    from ultra.supervisor.lifecycle import LifecycleEvent
    from ultra.supervisor.snapshot import SupervisorSnapshot

__all__ = ["LONGEST_RESTART", "LifecycleLedger", "longest_stop"]

LONGEST_RESTART = 20.0
"""Virtual seconds in which every restart has happened: its backoff, and stops and starts before it."""

CANCELLATION_IGNORED_FOR = 2.0
"""Virtual seconds for which handlers of the simulation ignore cancellation, at most."""

EXPECTED_ERRORS = ("SimulatedCrash", "InjectedFault")
"""Classes of the exceptions by which the simulation crashes actors."""


class LifecycleLedger:
    """All lives in the tree of one actor system, compared with what its supervisors were told to do.

    Attributes:
        nodes: the actors and supervisors by path.
        closing: whether the system was told to end.
        escalated: whether a crash went past the root supervisor.
        interrupted: whether KeyboardInterrupt was raised in a handler, which ends the system, too.
    """

    def __init__(self, record: Record, messages: MessageLedger) -> None:
        self._record = record
        self._messages = messages
        self.nodes: dict[str, Node] = {}
        self.closing = False
        self.escalated = False
        self.interrupted = False
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
        """Note that a child was added to a supervisor."""
        self.nodes[node.path] = node

    # --- one actor's life ----------------------------------------------------------------------------

    def begins(self, actor: ActorNode) -> None:
        """Note that a new incarnation is being made."""
        record = self._record
        now = self._record.now()
        record.events.append((now, "begin", actor.path, actor.incarnation + 1))
        record.check(
            7,
            not (actor.alive or actor.running),
            f"{actor.path} began again while its old incarnation lived and {actor.running} handlers ran",
            actor.path,
        )
        self._check_group_ended(actor)
        self._check_begin(actor, now)
        self._count_restart(actor, now)
        actor.note_begin(now)
        actor.crashed = actor.restart_decided = actor.unresponsive = False
        actor.shown_without_life = ActorState.RESTARTING
        actor.incarnation += 1
        actor.changed_at = now
        self._messages.interrupted(actor)

    def _check_group_ended(self, actor: ActorNode) -> None:
        """Check that the actors that are restarted with this one have ended; they may have begun again.

        An actor that begins for the last time, to drain its inbox, waits for no other.
        """
        for other, incarnation in () if actor.stop_asked else actor.must_end_before:
            self._record.check(
                7,
                other.incarnation > incarnation or not other.alive,
                f"{actor.path} began again, and {other.path}, to be restarted with it, had not ended",
                actor.path,
                other.path,
            )
        actor.must_end_before = []

    def _check_begin(self, node: Node, now: float) -> None:
        self._record.check(
            7,
            node.may_start and not node.ended,
            f"{node.path} began again though nothing had called for it (restart type {node.restart})",
            node.path,
        )
        # An actor that begins for the last time, to drain its inbox, waits for nothing.
        last = isinstance(node, ActorNode) and node.stop_asked
        self._record.check(
            8,
            last or now >= node.not_before - TIME_TOLERANCE,
            f"{node.path} began again before its backoff was over at {node.not_before:.3f} s",
            node.path,
        )
        self._check_turn(node)
        node.may_start = node.must_start = node.down = False

    def _check_turn(self, node: Node) -> None:
        """Check that the node begins after those that were added to its supervisor before it."""
        before = node.parent.children[: node.position] if node.parent is not None else []
        first = next((other for other in before if other.first_start_open), node)
        self._record.check(
            7,
            first is node or self.interrupted or node.is_leaving() or first.is_leaving(),
            f"{node.path} began, and {first.path}, before it, had neither started nor failed to",
            node.path,
            first.path,
        )

    def _count_restart(self, actor: ActorNode, now: float) -> None:
        """Check that restarts which really happen do not come more often than the intensity allows."""
        above = actor.parent
        if above is None or not actor.restart_decided:
            return
        # Under one_for_all and rest_for_one, children that crash together begin again by one restart:
        # there, count those of this child alone.
        restarts = above.restarts_done if above.strategy == "one_for_one" else actor.own_restarts
        restarts.append(now)
        intensity = above.intensity
        restarts[:] = [time for time in restarts if time > now - intensity.within + TIME_TOLERANCE]
        self._record.check(
            6,
            len(restarts) <= intensity.max_restarts,
            f"{len(restarts)} restarts below {above.path} within {intensity.within:g} s; "
            f"allowed are {intensity.max_restarts}",
            actor.path,
        )

    def crashes(self, actor: ActorNode, why: str) -> None:
        """Note that an exception leaves the actor."""
        self._record.add("crash", actor.path, actor.incarnation, why)
        actor.crashed = True

    def ends(self, actor: ActorNode) -> None:
        """Note the end of the incarnation: its on_stop has run, or its start has failed."""
        actor.alive = False
        actor.life = "none"
        actor.changed_at = self._record.now()

    def handler_ended(self, actor: ActorNode) -> None:
        """Note that a handler has ended, in whatever way."""
        actor.running -= 1
        actor.changed_at = self._record.now()

    # --- what supervisors announce -------------------------------------------------------------------

    def observe(self, event: LifecycleEvent) -> None:
        """Note a lifecycle event, and compare it with what is known."""
        node = self.nodes.get(event.path)
        error = type(event.error).__name__ if event.error is not None else ""
        self._record.add(event.kind, event.path, error)
        if node is not None:
            react = self._reactions.get(event.kind)
            if react is not None:
                react(node, event)

    def _starting(self, node: Node, event: LifecycleEvent) -> None:
        """A supervisor begins again: all its children may begin, and its old restarts do not count."""
        assert isinstance(node, SupervisorNode)
        now = event.time
        node.note_begin(now)
        self._check_begin(node, now)
        node.escalated = False
        node.life = "starting"
        node.shown_without_life = ActorState.RESTARTING
        node.restarts.clear()
        node.restarts_done.clear()
        for child in node.children:
            child.may_start = child.first_start_open = not child.ended
            child.restart_decided = False
            child.not_before = now
            if child.down:
                self._bring_back(child)
            if isinstance(child, ActorNode):
                child.own_restarts.clear()

    def _started(self, node: Node, _: LifecycleEvent) -> None:
        node.must_start = node.first_start_open = False
        if isinstance(node, SupervisorNode):
            node.life = "running"
            missing = [child.path for child in node.children if self._is_starting_up(child)]
            self._record.check(
                7,
                self.interrupted or not missing,
                f"{node.path} has started, and its {missing} have not",
                node.path,
                *missing,
            )

    def _is_starting_up(self, node: Node) -> bool:
        return node.first_start_open and not node.is_leaving()

    def _crashed(self, node: Node, event: LifecycleEvent) -> None:
        node.last_crash = event.time
        node.first_start_open = False
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
        recent = above.recent_restarts(now - TIME_TOLERANCE)
        self._record.check(
            6,
            len([began for _, began in recent if began > now - above.intensity.within + TIME_TOLERANCE])
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
                self._stop_for_good(child)
                continue
            child.may_start, child.not_before = True, due
            child.must_start = True
            child.first_start_open = False  # the supervisor starts without those that are restarted later
        node.restart_decided = True
        if isinstance(node, ActorNode):
            node.must_end_before = above.alive_with(node)
        else:
            node.life = "none"

    def _stop_for_good(self, node: Node) -> None:
        if isinstance(node, ActorNode):
            node.stop_asked = True
        elif isinstance(node, SupervisorNode):
            for child in node.children:
                self._stop_for_good(child)

    def _check_excess(self, above: SupervisorNode | None, node: Node | None) -> None:
        """Check that a supervisor may give up: on `node`, which it isolates, or (None) by escalation."""
        assert above is not None
        now = self._record.now()
        recent = above.recent_restarts(now - TIME_TOLERANCE)
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

    def _down(self, node: Node, _: LifecycleEvent) -> None:
        self._check_excess(node.parent, node)
        self._check_once(not node.down, node, "is down")
        self._take_down(node)

    def _escalated(self, node: Node, _: LifecycleEvent) -> None:
        assert isinstance(node, SupervisorNode)
        self._check_excess(node, None)
        self._check_once(not node.escalated, node, "escalated")
        node.escalated = True
        self.escalated = self.escalated or node.parent is None
        for child in node.children:
            child.may_start = False  # the restarts that were decided will not happen

    def _take_down(self, node: Node) -> None:
        node.down = True
        node.may_start = node.must_start = node.first_start_open = False
        node.life = "none"
        node.shown_without_life = ActorState.DOWN
        if isinstance(node, ActorNode):
            node.crashed = False
            self._messages.actor_ended(node)
        elif isinstance(node, SupervisorNode):
            for child in node.children:
                if not child.ended:
                    self._take_down(child)

    def _revived(self, node: Node, event: LifecycleEvent) -> None:
        node.may_start, node.not_before = True, event.time
        self._bring_back(node)

    def _bring_back(self, node: Node) -> None:
        """Note that the node, which was down, and all below it are to start again."""
        for each in node.subtree():
            if not each.ended:
                each.down = False
                each.shown_without_life = ActorState.STARTING

    def _unresponsive(self, node: Node, _: LifecycleEvent) -> None:
        node.unresponsive = True
        node.first_start_open = False

    def _stopped(self, node: Node, event: LifecycleEvent) -> None:
        self._check_once(not node.ended, node, "stopped")
        node.ended = True
        node.first_start_open = False
        node.note_begin(event.time)  # a restart that was decided will not happen any more
        node.may_start = node.must_start = False
        if isinstance(node, ActorNode):
            self._messages.actor_ended(node)

    # --- what snapshots show -------------------------------------------------------------------------

    def check_states(self, tree: SupervisorSnapshot) -> None:
        """Check that `tree`, taken while all tasks wait, shows each node in the state that it is in."""
        if self.closing or self.escalated or self.interrupted:
            return
        shown = dict(_states_in(tree))
        for node in self.nodes.values():
            self._record.checks[7] += 1
            state, expected = shown.get(node.path or "/"), self._expected_states(node)
            if state not in expected and not (node.is_leaving() or self._is_escalated(node.parent)):
                self._record.violate(
                    7, f"{node.path or '/'} is shown as {state}; expected was one of {expected}", node.path
                )

    def _expected_states(self, node: Node) -> list[ActorState | None]:
        """Return the states that a snapshot may show; None stands for none at all."""
        if node.ended:
            return [None]
        if isinstance(node, SupervisorNode) and node.parent is None:  # the root announces nothing
            starting = any(map(self._is_starting_up, node.children))
            return [ActorState.STARTING, *[ActorState.RUNNING] * (not starting)]
        if node.life == "none" or self._has_stopped_for_a_restart(node):
            return [node.shown_without_life]
        state = ActorState.RUNNING if node.life == "running" else ActorState.STARTING
        # Nothing tells when a supervisor has stopped, nor when an actor is stopped before its on_start.
        may_have_stopped = isinstance(node, SupervisorNode) or node.life == "begun"
        return [state, ActorState.STOPPING, *[ActorState.RESTARTING] * may_have_stopped]

    def _has_stopped_for_a_restart(self, node: Node) -> bool:
        """Return whether a supervisor has stopped for sure, to be restarted with others of its group.

        They stop in reverse order, so those after it have stopped, too.
        """
        return (
            isinstance(node, SupervisorNode)
            and node.must_start
            and node.parent is not None
            and all(other.has_no_life() for other in node.parent.children[node.position :])
        )

    def _is_escalated(self, node: Node | None) -> bool:
        """Return whether the node, or a supervisor above it, ends because of an escalation."""
        while node is not None:
            if isinstance(node, SupervisorNode) and node.escalated:
                return True
            node = node.parent
        return False

    # --- at rest -------------------------------------------------------------------------------------

    def check_at_rest(self) -> None:
        """Check, after a long quiet time, that all restarts have happened and no crash was forgotten."""
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
        """Return whether the node, or anything that might restart it, has crashed since then."""
        while node is not None:
            around = node.parent.children if node.parent is not None else ()
            if node.last_crash >= since or any(other.last_crash >= since for other in around):
                return True
            node = node.parent
        return False

    def is_gone(self, node: Node | None) -> bool:
        """Return whether the node, or a supervisor above it, is down or has ended."""
        while node is not None:
            if node.ended or node.down or (isinstance(node, SupervisorNode) and node.escalated):
                return True
            node = node.parent
        return False

    def longest_stop(self) -> float:
        """Return the most seconds that stopping all actors, one after the other, may take."""
        return sum(longest_stop(node) for node in self.nodes.values() if isinstance(node, ActorNode))


def longest_stop(actor: ActorNode, grace: float | None = None) -> float:
    """Return the most seconds that stopping one actor may take; `grace` None is the actor's own."""
    options = actor.options
    grace = options.grace if grace is None else grace
    return grace + options.stop_timeout + 1.0 + CANCELLATION_IGNORED_FOR


def _states_in(tree: SupervisorSnapshot) -> Iterator[tuple[str, ActorState]]:
    yield tree.path, tree.state
    for child in tree.children:
        if isinstance(child, ActorSnapshot):
            yield child.path, child.state
        else:
            yield from _states_in(child)


def _is_expected(error: BaseException) -> bool:
    if type(error).__name__ in EXPECTED_ERRORS:
        return True
    text = str(error)
    if isinstance(error, TimeoutError):
        return text.startswith(("on_start took", "on_stop took"))
    return isinstance(error, RuntimeError) and text == "it finished, and is permanent"
