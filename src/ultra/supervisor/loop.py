"""The supervision loop: starts, watches, restarts and stops the children of one supervisor.

It is a state machine with a single place where it waits (`_wait`). Children report their ends into a
queue and never raise into the nursery; whoever spawns or stops only notes what is wanted and wakes
the loop. So no two decisions are ever half done at once, and what a timer or an older life of a child
still has to say is seen to be stale when its turn comes.
"""

from __future__ import annotations

import heapq
from collections import deque
from functools import partial
from math import inf
from typing import TYPE_CHECKING

import trio
from trio.lowlevel import Abort, checkpoint, current_task, reschedule, wait_task_rescheduled

from ultra.actors.cell import ActorState
from ultra.errors import RestartLimitExceeded
from ultra.supervisor.child import Child, Phase
from ultra.supervisor.spec import OnExcess, RestartIntensity, RestartWindow, Strategy

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from trio.lowlevel import Task

    from ultra.actors.incarnation import Exit
    from ultra.supervisor.lifecycle import Lifecycle

__all__ = ["SupervisionLoop"]

STARTS_BEFORE_YIELD = 64
"""How many children are started in one go before other tasks get their turn."""


class SupervisionLoop:
    """The children of the supervisor at `path`, in the order in which they were added."""

    def __init__(
        self,
        path: str,
        *,
        strategy: Strategy,
        intensity: RestartIntensity,
        on_excess: OnExcess,
        lifecycle: Lifecycle,
        random: Random,
    ) -> None:
        self.path = path
        self.strategy: Strategy = strategy
        self.on_excess: OnExcess = on_excess
        self.children: dict[str, Child] = {}
        self.closed = False
        self.restarts = 0
        self._window = RestartWindow(intensity)
        self._lifecycle = lifecycle
        self._random = random
        self._reports: deque[Callable[[], None]] = deque()
        self._tickets = 0
        self._starts: list[tuple[float, int, Child]] = []  # a heap by the time they are due
        self._starting: Child | None = None
        self._stops: deque[Child] = deque()  # to be stopped in this order, one after the other
        self._stopping: Child | None = None  # the one of them whose turn it is
        self._leaving: dict[Child, None] = {}  # all that were told to stop and have not ended
        self._ending = False
        self._grace: float | None = None
        self._drain = False
        self._failure: Exception | None = None
        self._parked: Task | None = None
        self._woken = False

    # --- wishes; they only note what is wanted ---------------------------------------------------

    def add(self, child: Child) -> None:
        """Take in a child; it starts after those added before it."""
        self.children[child.name] = child
        self._schedule(child, trio.current_time())

    def revive(self, child: Child) -> None:
        """Start a child that is down again."""
        if child.phase is Phase.DOWN:
            child.crashes_in_a_row = 0
            child.phase = Phase.WAITING
            child.revive()
            self._lifecycle.emit("revived", child.path)
            self._schedule(child, trio.current_time())

    def stop_child(self, child: Child, grace: float | None, *, drain: bool) -> None:
        """Stop a child for good, now, whatever else is going on."""
        child.removing = True
        if child.life is None:
            self._remove(child)
        else:
            self._begin_stop(child, grace, drain=drain)
        self._wake()

    def begin_stop(self, grace: float | None = None, *, drain: bool = False, for_good: bool = True) -> None:
        """Stop all children in reverse order and end; for good, or until `run` is called again."""
        self.closed = self.closed or for_good
        self._ending = True
        self._grace = grace
        self._drain = drain
        self._starts.clear()
        self._stops = deque(reversed(self.children.values()))
        self._wake()

    def stop_bound(self, grace: float | None) -> float:
        """The most seconds that `begin_stop` may take."""
        return sum(child.stop_bound(grace) for child in self.children.values())

    def terminate_children(self, state: ActorState, error: Exception | None = None) -> None:
        """No child will live again, unless `revive_children` is called: tell all who wait for them."""
        for child in tuple(self.children.values()):
            if state is ActorState.DOWN:
                child.phase = Phase.DOWN
                child.terminate(state, error)
            else:
                self._remove(child)

    def revive_children(self) -> None:
        """Make the children ready to live again when `run` is called."""
        for child in self.children.values():
            child.phase = Phase.WAITING
            child.revive()

    # --- reports of children -----------------------------------------------------------------------

    def child_started(self, child: Child, life: object) -> None:
        """A child is ready."""
        self._reports.append(partial(self._on_started, child, life))
        self._wake()

    def child_exited(self, child: Child, life: object, how: Exit) -> None:
        """A child's task is about to return."""
        self._reports.append(partial(self._on_exit, child, life, how))
        self._wake()

    # --- the loop ------------------------------------------------------------------------------------

    async def run(self, on_started: Callable[[], None]) -> Exception | None:
        """Supervise until told to stop, or until the restart intensity is exceeded.

        Returns the failure to escalate, or None. Calls `on_started` once all children that were there
        at the beginning have started. Cancelled, all children are cancelled at once, in no order.
        """
        self._failure = None
        self._window.clear()
        for child in self.children.values():
            if child.phase is Phase.DOWN:
                child.phase = Phase.WAITING
                child.revive()
            self._schedule(child, trio.current_time())
        async with trio.open_nursery() as nursery:
            await self._loop(nursery, on_started)
        self._ending = False
        return self._failure

    async def _loop(self, nursery: trio.Nursery, on_started: Callable[[], None]) -> None:
        announced = False
        while True:
            while self._reports:
                self._reports.popleft()()
            self._advance_stops()
            self._advance_starts(nursery)
            if self._ending and not (self._stops or self._leaving):
                return
            if not (announced or self._starting or self._next_start() <= trio.current_time()):
                announced = True
                on_started()
            await self._wait()

    async def _wait(self) -> None:
        """Wait for a wish, a report or a timer; the only place where the loop waits."""
        if self._woken:
            self._woken = False
            await checkpoint()
            return
        deadline = min(self._next_start(), min((child.give_up_at for child in self._leaving), default=inf))
        with trio.CancelScope(deadline=deadline):
            self._parked = current_task()
            await wait_task_rescheduled(self._unpark)
        self._woken = False

    def _wake(self) -> None:
        self._woken = True
        if self._parked is not None:
            task, self._parked = self._parked, None
            reschedule(task)

    def _unpark(self, _raise_cancel: object) -> Abort:
        self._parked = None
        return Abort.SUCCEEDED

    # --- starting --------------------------------------------------------------------------------------

    def _schedule(self, child: Child, due: float) -> None:
        self._tickets += 1
        child.ticket = self._tickets
        heapq.heappush(self._starts, (due, self._tickets, child))
        self._wake()

    def _next_start(self) -> float:
        """When the next child may be started; never, while others have to stop or start first."""
        if self._ending or self._stops or self._stopping or self._starting or not self._starts:
            return inf
        return self._starts[0][0]

    def _advance_starts(self, nursery: trio.Nursery) -> None:
        for _ in range(STARTS_BEFORE_YIELD):
            if self._next_start() > trio.current_time():
                return
            _, ticket, child = heapq.heappop(self._starts)
            if child.ticket == ticket and child.phase is Phase.WAITING:
                self._launch(child, nursery)

    def _launch(self, child: Child, nursery: trio.Nursery) -> None:
        child.started_at = trio.current_time()
        child.waits_no_longer()
        try:
            ready = child.launch(nursery, self)
        except Exception as error:  # noqa: BLE001 - whatever the factory raises is a failed start
            self._on_crash(child, error)
            return
        child.phase = Phase.STARTING
        self._starting = child
        if ready:
            self._on_started(child, child.life)

    def _on_started(self, child: Child, life: object) -> None:
        if child.life is life and child.phase is Phase.STARTING:
            child.phase = Phase.RUNNING
            self._starting = None
            self._lifecycle.emit("started", child.path)

    # --- stopping --------------------------------------------------------------------------------------

    def _advance_stops(self) -> None:
        now = trio.current_time()
        for child in [child for child in self._leaving if child.give_up_at <= now]:
            del self._leaving[child]
            child.phase = Phase.STUCK
            self._lifecycle.emit("unresponsive", child.path)
        while self._stopping is None or self._stopping.phase is not Phase.STOPPING:
            self._stopping = self._stops.popleft() if self._stops else None
            if self._stopping is None:
                return
            self._stop_in_turn(self._stopping)

    def _stop_in_turn(self, child: Child) -> None:
        child.removing = child.removing or (self._ending and self.closed)
        if child.life is not None:
            self._begin_stop(child, self._grace, drain=self._drain)
        elif child.removing:
            self._remove(child)

    def _begin_stop(self, child: Child, grace: float | None, *, drain: bool) -> None:
        child.stop(grace, drain=drain)
        give_up_at = trio.current_time() + child.stop_bound(grace)
        if child.phase is Phase.STUCK:
            return
        child.give_up_at = (
            give_up_at if child.phase is not Phase.STOPPING else min(child.give_up_at, give_up_at)
        )
        child.phase = Phase.STOPPING
        self._leaving[child] = None

    def _remove(self, child: Child, error: Exception | None = None) -> None:
        if child.phase is Phase.ENDED:
            return
        child.phase = Phase.ENDED
        child.waits_no_longer()
        del self.children[child.name]
        child.terminate(ActorState.STOPPED, error)
        self._lifecycle.emit("stopped", child.path, error)

    # --- ends that nobody asked for --------------------------------------------------------------------

    def _on_exit(self, child: Child, life: object, how: Exit) -> None:
        if child.life is not life:
            return
        child.life = None
        self._leaving.pop(child, None)
        if self._starting is child:
            self._starting = None
        expected = self._ending or child.phase in (Phase.STOPPING, Phase.STUCK)
        if not expected and (how.error is not None or child.restart == "permanent"):
            self._on_crash(child, how.error or RuntimeError("it finished, and is permanent"))
            return
        if how.error is not None:
            self._lifecycle.emit("crashed", child.path, how.error)
        if child.removing or not expected or (self._ending and self.closed):
            self._remove(child, how.error)
            return
        was_stuck = child.phase is Phase.STUCK
        child.phase = Phase.WAITING
        child.restarting()
        if was_stuck:
            self._schedule(child, trio.current_time())

    def _on_crash(self, child: Child, error: Exception) -> None:
        self._lifecycle.emit("crashed", child.path, error)
        child.phase = Phase.WAITING
        if child.restart == "temporary":
            self._remove(child, error)
            return
        now = trio.current_time()
        if now - child.started_at >= child.backoff.reset_after:
            child.crashes_in_a_row = 0
        child.crashes_in_a_row += 1
        delay = child.backoff.delay(child.crashes_in_a_row, self._random)
        child.counted = self._window.admit(now)
        if child.counted is not None:
            self._lifecycle.emit("restarting", child.path, error, delay)
            child.restarting()
            self.restarts += 1
            self._restart_group(child, now + delay)
        else:
            self._on_excess(child, error)

    def _restart_group(self, child: Child, due: float) -> None:
        """Stop, in reverse order, whom the strategy restarts with `child`; start all in order at `due`."""
        members = list(self.children.values())
        if self.strategy == "one_for_one":
            members = [child]
        elif self.strategy == "rest_for_one":
            members = members[members.index(child) :]
        for member in reversed(members):
            if member is not child and member.restart == "temporary":
                member.removing = True
            if member.life is not None or member.removing:
                self._stops.append(member)
        for member in members:
            if member.phase is not Phase.DOWN and not member.removing:
                self._schedule(member, due)

    def _on_excess(self, child: Child, error: Exception) -> None:
        if self.on_excess == "isolate":
            child.phase = Phase.DOWN
            child.terminate(ActorState.DOWN, error)
            self._lifecycle.emit("down", child.path, error)
            return
        intensity = self._window.intensity
        self._failure = RestartLimitExceeded(child.path, intensity.max_restarts, intensity.within, error)
        self._lifecycle.emit("escalated", self.path or "/", self._failure)
        self.begin_stop(for_good=False)
