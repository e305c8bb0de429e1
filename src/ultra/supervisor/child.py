"""What a supervisor keeps of one child: an actor, or another supervisor."""

# ruff: noqa: D102 - `Child`, `Parent` and `Owner` say once what each method does

from __future__ import annotations

import contextvars
from enum import Enum
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Protocol

import trio

from ultra.actors.runtime.incarnation import Exit, Incarnation
from ultra.actors.runtime.status import ActorState

if TYPE_CHECKING:
    from trio.lowlevel import Task

    from ultra.actors.runtime.cell import Cell
    from ultra.actors.runtime.status import ActorSnapshot
    from ultra.supervisor.restart_policy import CountedRestart
    from ultra.supervisor.snapshot import SupervisorSnapshot
    from ultra.supervisor.spec import Backoff, ChildSpec, Restart
    from ultra.supervisor.supervisor import Supervisor

__all__ = ["ActorChild", "Child", "Parent", "Phase", "SupervisorChild"]

CANCEL_ALLOWANCE = 1.0
"""Seconds that a cancelled child has to end before it is reported and waited for no longer."""


class Phase(Enum):
    """Where a child is, as its supervisor sees it."""

    WAITING = "waiting"  # for its turn to start, or for the end of its backoff
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    UNRESPONSIVE = "unresponsive"  # it was cancelled and has not ended; it is waited for no longer
    DOWN = "down"
    ENDED = "ended"


class Parent(Protocol):
    """What children report to: the supervision loop above them. Every method returns at once.

    `incarnation` names the incarnation that reports, so that a late report of an older one is recognised.
    """

    def waits_for_start(self, child: Child, task: Task) -> bool:
        """Return whether the child cannot start before code that runs in, or below, `task` has returned."""
        ...

    def child_started(self, child: Child, incarnation: object) -> None:
        """Take note that the child is ready."""

    def child_ending(self, child: Child, incarnation: object, within: float) -> None:
        """Take note that the child began to end by itself, and should need at most `within` seconds."""

    def child_exited(self, child: Child, incarnation: object, reason: Exit) -> None:
        """Take note that the incarnation has ended; its task, if it had one, is about to return."""

    def stop_child(self, child: Child, grace: float | None, *, drain: bool) -> None:
        """Stop the child for good."""


class Child:
    """What actors and supervisors have in common as children.

    Attributes:
        incarnation: the current one; None between two of them.
        removing: whether the child is to be stopped for good.
        start_count: how often it was started.
        pending_restart: the restart for its own crash, as long as that is still to come.
        crashes_in_a_row: since it last ran for `Backoff.reset_after` seconds.
        started_at: when the current, or the last, incarnation was ready; infinity if it never was.
    """

    __slots__ = (
        "backoff",
        "crashes_in_a_row",
        "incarnation",
        "name",
        "parent",
        "path",
        "pending_restart",
        "phase",
        "removing",
        "restart",
        "start_count",
        "started_at",
    )

    def __init__(self, name: str, path: str, restart: Restart, backoff: Backoff, parent: Parent) -> None:
        self.name = name
        self.path = path
        self.restart: Restart = restart
        self.backoff = backoff
        self.parent = parent
        self.phase = Phase.WAITING
        self.incarnation: object | None = None
        self.removing = False
        self.start_count = 0
        self.pending_restart: CountedRestart | None = None
        self.crashes_in_a_row = 0
        self.started_at = inf

    @property
    def restarts(self) -> int:
        """How often the child was started again, failed starts included."""
        return max(0, self.start_count - 1)

    def has_messages(self) -> bool:
        """Return whether messages wait for the child, or for an actor below it."""
        raise NotImplementedError

    def start(self, nursery: trio.Nursery) -> bool:
        """Start a new incarnation; return whether it is ready at once. Raises what its factory raises."""
        raise NotImplementedError

    def stop(self, grace: float | None, *, drain: bool) -> None:
        """Begin to end the current incarnation."""
        raise NotImplementedError

    def cancel_lazy_start(self) -> None:
        """End an incarnation that has no task yet; nothing can be started in the supervisor's nursery."""

    def max_start_time(self) -> float:
        """Return after how many seconds the start is given up."""
        raise NotImplementedError

    def max_stop_time(self, grace: float | None) -> float:
        """Return after how many seconds the wait for the end is given up, if `stop` gives it `grace`."""
        raise NotImplementedError

    def note_crash(self, error: Exception) -> None:
        """Take note of the newest crash."""
        raise NotImplementedError

    def mark_restarting(self) -> None:
        """Show the child as restarting: it is between two incarnations."""
        raise NotImplementedError

    def settle_pending_restart(self) -> None:
        """Take note that a restart that was counted takes place now, or never will."""
        if self.pending_restart is not None:
            self.pending_restart.time = trio.current_time()
            self.pending_restart = None

    def terminate(self, state: ActorState, error: Exception | None = None) -> None:
        """Take note that there will be no other incarnation, unless the child is revived."""
        raise NotImplementedError

    def revive(self) -> None:
        """Make the child ready for another incarnation after `terminate`."""
        raise NotImplementedError

    def starts_in(self, task: Task) -> bool:
        """Return whether the child is starting, and its code runs in `task` or in a task around that."""
        raise NotImplementedError

    def waits_for_start(self, task: Task) -> bool:
        """Return whether this child, or one above it, waits for an `on_start` that runs in `task`."""
        return self.parent.waits_for_start(self, task)

    def stop_requested(self, *, drain: bool, grace: float | None) -> None:
        """Have the supervisor stop this child for good."""
        self.parent.stop_child(self, grace, drain=drain)

    def snapshot(self) -> ActorSnapshot | SupervisorSnapshot:
        """Return the child as it is right now."""
        raise NotImplementedError


class ActorChild(Child):
    """An actor under supervision; the `Owner` of its cell."""

    __slots__ = ("cell",)

    def __init__(self, spec: ChildSpec, cell: Cell, parent: Parent) -> None:
        super().__init__(spec.name, cell.path, spec.restart, spec.backoff, parent)
        self.cell = cell
        cell.owner = self

    def has_messages(self) -> bool:
        return len(self.cell.inbox) > 0

    def starts_in(self, task: Task) -> bool:
        incarnation = self.cell.incarnation
        if incarnation is None or incarnation.task is None or not incarnation.is_starting:
            return False
        around: Task | None = task
        while around is not None and around is not incarnation.task:
            nursery = around.parent_nursery
            around = None if nursery is None else nursery.parent_task
        return around is not None

    def start(self, nursery: trio.Nursery) -> bool:
        # Each incarnation starts in a context of its own: nothing of an earlier one, or of the task that
        # happened to spawn the actor, reaches it.
        context = contextvars.Context()
        self.start_count += 1
        self.cell.restarts = self.restarts
        self.cell.state = ActorState.STARTING
        incarnation = context.run(Incarnation, self.cell)
        self.incarnation = self.cell.incarnation = incarnation
        if incarnation.starts_at_once:
            self.cell.state = ActorState.RUNNING
        incarnation.start(nursery, context)
        return incarnation.starts_at_once

    def incarnation_started(self, incarnation: Incarnation) -> None:
        if not incarnation.starts_at_once:
            if self.cell.state is ActorState.STARTING:
                self.cell.state = ActorState.RUNNING
            self.parent.child_started(self, incarnation)

    def incarnation_ending(self, incarnation: Incarnation) -> None:
        self.parent.child_ending(self, incarnation, self.cell.options.stop_timeout + CANCEL_ALLOWANCE)

    def incarnation_ended(self, incarnation: Incarnation, reason: Exit) -> None:
        if self.cell.incarnation is incarnation:
            self.cell.incarnation = None
        if reason.error is not None:
            self.cell.last_error = reason.error
        self.parent.child_exited(self, incarnation, reason)

    def stop(self, grace: float | None, *, drain: bool) -> None:
        self.cell.state = ActorState.STOPPING
        if self.removing:
            self.cell.close(drain=drain)
        if self.cell.incarnation is not None:
            grace = self.cell.options.grace if grace is None else grace
            self.cell.incarnation.stop(grace, drain=drain)

    def cancel_lazy_start(self) -> None:
        if self.cell.incarnation is not None and self.cell.incarnation.cancel_lazy_start():
            self.incarnation = self.cell.incarnation = None

    def max_start_time(self) -> float:
        return self.cell.options.start_timeout + CANCEL_ALLOWANCE

    def max_stop_time(self, grace: float | None) -> float:
        options = self.cell.options
        return (options.grace if grace is None else grace) + options.stop_timeout + CANCEL_ALLOWANCE

    def note_crash(self, error: Exception) -> None:
        self.cell.last_error = error

    def mark_restarting(self) -> None:
        self.cell.state = ActorState.RESTARTING

    def terminate(self, state: ActorState, error: Exception | None = None) -> None:
        self.cell.terminate(state, error)

    def revive(self) -> None:
        self.cell.revive()

    def snapshot(self) -> ActorSnapshot:
        return self.cell.snapshot()


class SupervisorChild(Child):
    """A supervisor under supervision."""

    __slots__ = ("loop", "supervisor")

    def __init__(self, supervisor: Supervisor, restart: Restart, backoff: Backoff, parent: Parent) -> None:
        super().__init__(supervisor.name, supervisor.path, restart, backoff, parent)
        self.supervisor = supervisor
        self.loop = supervisor.loop
        self.loop.child = self

    def starts_in(self, task: Task) -> bool:
        return self.loop.starts_in(task)

    def has_messages(self) -> bool:
        return self.loop.has_messages()

    def start(self, nursery: trio.Nursery) -> bool:
        self.start_count += 1
        incarnation = self.incarnation = object()
        self.loop.prepare()
        run = partial(self._run, incarnation)
        contextvars.Context().run(partial(nursery.start_soon, run, name=self.path))
        return False

    async def _run(self, incarnation: object) -> None:
        try:
            failure = await self.loop.run(lambda: self.parent.child_started(self, incarnation))
        except BaseException:
            self.parent.child_exited(self, incarnation, Exit(None, unwound=True))
            raise
        self.parent.child_exited(self, incarnation, Exit(failure))

    def stop(self, grace: float | None, *, drain: bool) -> None:
        self.loop.begin_stop(grace, drain=drain, for_good=self.removing)

    def max_start_time(self) -> float:
        return inf  # the supervisor itself gives up its children, one by one

    def max_stop_time(self, grace: float | None) -> float:
        return self.loop.max_stop_time(grace) + CANCEL_ALLOWANCE

    def note_crash(self, error: Exception) -> None:
        """Do nothing: the children have taken note of their own crashes."""

    def mark_restarting(self) -> None:
        self.loop.state = ActorState.RESTARTING

    def terminate(self, state: ActorState, error: Exception | None = None) -> None:
        self.loop.terminate(state, error)

    def revive(self) -> None:
        self.loop.revive_children()

    def snapshot(self) -> SupervisorSnapshot:
        return self.supervisor.snapshot()
