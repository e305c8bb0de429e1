"""A supervisor's record of one child: an actor, or another supervisor."""

# ruff: noqa: D102 - `Child` says once what each method does

from __future__ import annotations

import contextvars
from enum import Enum
from typing import TYPE_CHECKING, Protocol

import trio

from ultra.actors.cell import ActorState, Cell
from ultra.actors.incarnation import Exit, Incarnation

if TYPE_CHECKING:
    from ultra.actors.cell import ActorSnapshot
    from ultra.supervisor.snapshot import SupervisorSnapshot
    from ultra.supervisor.spec import Backoff, ChildSpec, CountedRestart, Restart
    from ultra.supervisor.supervisor import Supervisor

__all__ = ["ActorChild", "Child", "Phase", "SupervisorChild"]


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
    """How a child's task tells its supervisor what happened. Both are called at most once a life."""

    def child_started(self, child: Child, life: object) -> None:
        """The child is ready."""

    def child_exited(self, child: Child, life: object, how: Exit) -> None:
        """The child's task is about to return."""


class Child:
    """What all children have in common. `life` is the current incarnation, None between two."""

    __slots__ = (
        "backoff",
        "counted",
        "crashes_in_a_row",
        "give_up_at",
        "life",
        "name",
        "path",
        "phase",
        "removing",
        "restart",
        "restarts",
        "started_at",
        "ticket",
    )

    def __init__(self, name: str, path: str, restart: Restart, backoff: Backoff) -> None:
        self.name = name
        self.path = path
        self.restart: Restart = restart
        self.backoff = backoff
        self.phase = Phase.WAITING
        self.life: object | None = None
        self.removing = False
        self.restarts = 0
        self.counted: CountedRestart | None = None  # the restart for its own crash that is still to come
        self.crashes_in_a_row = 0
        self.started_at = 0.0
        self.ticket = 0
        self.give_up_at = float("inf")

    def launch(self, nursery: trio.Nursery, reports: Reports) -> bool:
        """Begin a new life; True when the child is ready at once. Raises when it cannot begin."""
        raise NotImplementedError

    def stop(self, grace: float | None, *, drain: bool) -> None:
        """Begin to end the current life."""
        raise NotImplementedError

    def stop_bound(self, grace: float | None) -> float:
        """After how many seconds it is no use to wait longer for the end that `stop` began."""
        raise NotImplementedError

    def restarting(self) -> None:
        """The child will live again."""
        self.restarts += 1

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

    def snapshot(self) -> ActorSnapshot | SupervisorSnapshot:
        """The child as it is right now."""
        raise NotImplementedError


class ActorChild(Child):
    """An actor under supervision."""

    __slots__ = ("cell",)

    def __init__(self, spec: ChildSpec, cell: Cell) -> None:
        super().__init__(spec.name, cell.path, spec.restart, spec.backoff)
        self.cell = cell

    def launch(self, nursery: trio.Nursery, reports: Reports) -> bool:
        # Each life starts in a context of its own: nothing of an earlier life, or of whoever happened
        # to spawn the actor, reaches it.
        context = contextvars.Context()
        self.cell.state = ActorState.STARTING
        incarnation = context.run(Incarnation, self.cell)
        self.life = self.cell.incarnation = incarnation
        context.run(nursery.start_soon, self._live, incarnation, reports)
        return incarnation.starts_at_once

    async def _live(self, incarnation: Incarnation, reports: Reports) -> None:
        def started() -> None:
            if self.cell.state is ActorState.STARTING:
                self.cell.state = ActorState.RUNNING
            if not incarnation.starts_at_once:
                reports.child_started(self, incarnation)

        how = await incarnation.live(started)
        if how.error is not None:
            self.cell.last_error = how.error
        self.cell.incarnation = None
        reports.child_exited(self, incarnation, how)

    def stop(self, grace: float | None, *, drain: bool) -> None:
        options = self.cell.options
        self.cell.state = ActorState.STOPPING
        if self.removing:
            self.cell.close(drain=drain)
        if self.cell.incarnation is not None:
            self.cell.incarnation.stop(options.grace if grace is None else grace, drain=drain)

    def stop_bound(self, grace: float | None) -> float:
        options = self.cell.options
        return (options.grace if grace is None else grace) + options.stop_timeout + CANCEL_ALLOWANCE

    def restarting(self) -> None:
        super().restarting()
        self.cell.restarts = self.restarts
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

    def __init__(self, supervisor: Supervisor, restart: Restart, backoff: Backoff) -> None:
        super().__init__(supervisor.name, supervisor.path, restart, backoff)
        self.supervisor = supervisor
        self.loop = supervisor.loop

    def launch(self, nursery: trio.Nursery, reports: Reports) -> bool:
        life = self.life = object()
        contextvars.Context().run(nursery.start_soon, self._live, life, reports)
        return False

    async def _live(self, life: object, reports: Reports) -> None:
        def started() -> None:
            reports.child_started(self, life)

        how = Exit(await self.loop.run(started))
        reports.child_exited(self, life, how)

    def stop(self, grace: float | None, *, drain: bool) -> None:
        self.loop.begin_stop(grace, drain=drain, for_good=self.removing)

    def stop_bound(self, grace: float | None) -> float:
        return self.loop.stop_bound(grace) + CANCEL_ALLOWANCE

    def terminate(self, state: ActorState, error: Exception | None = None) -> None:
        self.loop.terminate_children(state, error)
        if state is ActorState.STOPPED:
            self.loop.closed = True
            self.supervisor.ended.set()

    def revive(self) -> None:
        self.loop.revive_children()

    def snapshot(self) -> SupervisorSnapshot:
        return self.supervisor.snapshot()


CANCEL_ALLOWANCE = 1.0
"""Seconds that a cancelled child has to end before it is reported and waited for no longer."""
