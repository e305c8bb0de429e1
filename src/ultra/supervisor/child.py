"""A supervisor's record of one child: an actor, or another supervisor."""

# ruff: noqa: D102 - `Child`, `Reports` and `Owner` say once what each method does

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
    from ultra.actors.runtime.cell import Cell
    from ultra.actors.runtime.status import ActorSnapshot
    from ultra.supervisor.intensity import CountedRestart
    from ultra.supervisor.snapshot import SupervisorSnapshot
    from ultra.supervisor.spec import Backoff, ChildSpec, Restart
    from ultra.supervisor.supervisor import Supervisor

__all__ = ["ActorChild", "Child", "Phase", "Reports", "SupervisorChild"]

CANCEL_ALLOWANCE = 1.0
"""Seconds that a cancelled child has to end before it is reported and waited for no longer."""


class Phase(Enum):
    """Where a child is, as its supervisor sees it."""

    WAITING = "waiting"  # for its turn to start, or for the end of its backoff
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STUCK = "stuck"  # it was cancelled and has not ended; nobody waits for it any more
    DOWN = "down"
    ENDED = "ended"


class Reports(Protocol):
    """How children tell their supervisor what happens to them. All of it returns at once.

    `life` says which incarnation speaks, so that what an older one still has to say is not mistaken.
    """

    def child_started(self, child: Child, life: object) -> None:
        """The child is ready."""

    def child_ending(self, child: Child, life: object, within: float) -> None:
        """The child began to end, of itself, which should take at most `within` seconds."""

    def child_exited(self, child: Child, life: object, how: Exit) -> None:
        """The child's task, if it had one, is about to return."""

    def stop_child(self, child: Child, grace: float | None, *, drain: bool) -> None:
        """The child is to be stopped for good."""


class Child:
    """What all children have in common. `life` is the current incarnation, None between two."""

    __slots__ = (
        "backoff",
        "counted",
        "crashes_in_a_row",
        "due",
        "give_up_at",
        "launches",
        "life",
        "name",
        "path",
        "phase",
        "ready_at",
        "removing",
        "reports",
        "restart",
        "ticket",
    )

    def __init__(self, name: str, path: str, restart: Restart, backoff: Backoff, reports: Reports) -> None:
        self.name = name
        self.path = path
        self.restart: Restart = restart
        self.backoff = backoff
        self.reports = reports
        self.phase = Phase.WAITING
        self.life: object | None = None
        self.removing = False
        self.launches = 0
        self.counted: CountedRestart | None = None  # the restart for its own crash that is still to come
        self.crashes_in_a_row = 0
        self.ready_at = inf  # when the current, or the last, incarnation was ready
        self.give_up_at = inf  # when it is no use to wait longer for what the child is doing
        self.ticket = 0  # its place in the supervisor's `StartQueue`; 0 is none
        self.due = -inf  # and the time of that place

    @property
    def restarts(self) -> int:
        """How often the child was started again, failed starts included."""
        return max(0, self.launches - 1)

    def has_messages(self) -> bool:
        """Whether messages wait for the child, or for one below it."""
        raise NotImplementedError

    def launch(self, nursery: trio.Nursery) -> bool:
        """Begin a new life; True when the child is ready at once. Raises when it cannot begin."""
        raise NotImplementedError

    def stop(self, grace: float | None, *, drain: bool) -> None:
        """Begin to end the current life."""
        raise NotImplementedError

    def forsake(self) -> None:
        """The supervisor's nursery closes: end a life that has no task in it to be cancelled."""

    def start_bound(self) -> float:
        """After how many seconds it is no use to wait longer for the start that `launch` began."""
        raise NotImplementedError

    def stop_bound(self, grace: float | None) -> float:
        """After how many seconds it is no use to wait longer for the end that `stop` began."""
        raise NotImplementedError

    def crashed(self, error: Exception) -> None:
        """Take note of the newest crash."""
        raise NotImplementedError

    def restarting(self) -> None:
        """The child is between two lives."""
        raise NotImplementedError

    def waits_no_longer(self) -> None:
        """A restart that was counted takes place now, or never will."""
        if self.counted is not None:
            self.counted.time = trio.current_time()
            self.counted = None

    def terminate(self, state: ActorState, error: Exception | None = None) -> None:
        """The child will not live again, unless it is revived."""
        raise NotImplementedError

    def revive(self) -> None:
        """Make the child ready for another life after `terminate`."""
        raise NotImplementedError

    def stop_requested(self, *, drain: bool, grace: float | None) -> None:
        """Have the supervisor stop this child for good."""
        self.reports.stop_child(self, grace, drain=drain)

    def snapshot(self) -> ActorSnapshot | SupervisorSnapshot:
        """The child as it is right now."""
        raise NotImplementedError


class ActorChild(Child):
    """An actor under supervision; the `Owner` of its cell."""

    __slots__ = ("cell",)

    def __init__(self, spec: ChildSpec, cell: Cell, reports: Reports) -> None:
        super().__init__(spec.name, cell.path, spec.restart, spec.backoff, reports)
        self.cell = cell
        cell.owner = self

    def has_messages(self) -> bool:
        return len(self.cell.inbox) > 0

    def launch(self, nursery: trio.Nursery) -> bool:
        # Each life starts in a context of its own: nothing of an earlier life, or of whoever happened
        # to spawn the actor, reaches it.
        context = contextvars.Context()
        self.launches += 1
        self.cell.restarts = self.restarts
        self.cell.state = ActorState.STARTING
        life = context.run(Incarnation, self.cell)
        self.life = self.cell.incarnation = life
        if life.starts_at_once:
            self.cell.state = ActorState.RUNNING
        life.begin(nursery, context)
        return life.starts_at_once

    def life_started(self, life: Incarnation) -> None:
        if not life.starts_at_once:
            if self.cell.state is ActorState.STARTING:
                self.cell.state = ActorState.RUNNING
            self.reports.child_started(self, life)

    def life_ending(self, life: Incarnation) -> None:
        self.reports.child_ending(self, life, self.cell.options.stop_timeout + CANCEL_ALLOWANCE)

    def life_ended(self, life: Incarnation, how: Exit) -> None:
        if self.cell.incarnation is life:
            self.cell.incarnation = None
        if how.error is not None:
            self.cell.last_error = how.error
        self.reports.child_exited(self, life, how)

    def stop(self, grace: float | None, *, drain: bool) -> None:
        self.cell.state = ActorState.STOPPING
        if self.removing:
            self.cell.close(drain=drain)
        if self.cell.incarnation is not None:
            grace = self.cell.options.grace if grace is None else grace
            self.cell.incarnation.stop(grace, drain=drain)

    def forsake(self) -> None:
        if self.cell.incarnation is not None and self.cell.incarnation.forsake():
            self.life = self.cell.incarnation = None

    def start_bound(self) -> float:
        return self.cell.options.start_timeout + CANCEL_ALLOWANCE

    def stop_bound(self, grace: float | None) -> float:
        options = self.cell.options
        return (options.grace if grace is None else grace) + options.stop_timeout + CANCEL_ALLOWANCE

    def crashed(self, error: Exception) -> None:
        self.cell.last_error = error

    def restarting(self) -> None:
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

    def __init__(self, supervisor: Supervisor, restart: Restart, backoff: Backoff, reports: Reports) -> None:
        super().__init__(supervisor.name, supervisor.path, restart, backoff, reports)
        self.supervisor = supervisor
        self.loop = supervisor.loop

    def has_messages(self) -> bool:
        return self.loop.has_messages()

    def launch(self, nursery: trio.Nursery) -> bool:
        self.launches += 1
        life = self.life = object()
        self.loop.prepare()
        run = partial(self._live, life)
        contextvars.Context().run(partial(nursery.start_soon, run, name=self.path))
        return False

    async def _live(self, life: object) -> None:
        try:
            failure = await self.loop.run(lambda: self.reports.child_started(self, life))
        except BaseException:
            self.reports.child_exited(self, life, Exit(None, unwound=True))
            raise
        self.reports.child_exited(self, life, Exit(failure))

    def stop(self, grace: float | None, *, drain: bool) -> None:
        self.loop.begin_stop(grace, drain=drain, for_good=self.removing)

    def start_bound(self) -> float:
        return inf  # that is for the supervisor itself to say, child by child

    def stop_bound(self, grace: float | None) -> float:
        return self.loop.stop_bound(grace) + CANCEL_ALLOWANCE

    def crashed(self, error: Exception) -> None:
        """Nothing is left to note: the children know of their own."""

    def restarting(self) -> None:
        self.loop.state = ActorState.RESTARTING

    def terminate(self, state: ActorState, error: Exception | None = None) -> None:
        self.loop.terminate(state, error)

    def revive(self) -> None:
        self.loop.revive_children()

    def snapshot(self) -> SupervisorSnapshot:
        return self.supervisor.snapshot()
