"""The supervision loop: starts, watches, restarts and stops the children of one supervisor.

It is a state machine with a single place where it waits, at the end of `_loop`. Children report into a
queue and never raise into the nursery; whoever spawns or stops only notes what is wanted and wakes the
loop. So no two decisions are ever half done at once, and what a timer or an older life of a child still
has to say is seen to be stale when its turn comes.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from itertools import islice
from math import inf
from typing import TYPE_CHECKING

import trio

from ultra.actors.runtime.incarnation import Exit
from ultra.actors.runtime.status import ActorState
from ultra.actors.runtime.wakeup import Wakeup
from ultra.errors import ActorUnresponsive
from ultra.supervisor.child import Child, Phase
from ultra.supervisor.patience import Patience
from ultra.supervisor.roster import Roster
from ultra.supervisor.starts import AT_ONCE, StartQueue
from ultra.supervisor.stops import StopQueue, StopTerms

if TYPE_CHECKING:
    from collections.abc import Callable

    from ultra.supervisor.lifecycle import Lifecycle
    from ultra.supervisor.policy import RestartPolicy

__all__ = ["SupervisionLoop"]

BATCH = 64
"""How many children are started, or stopped, in one go before other tasks get their turn."""


class SupervisionLoop(Roster):
    """Decides, for the supervisor at `path`, which of its children live when."""

    def __init__(self, path: str, policy: RestartPolicy, lifecycle: Lifecycle) -> None:
        super().__init__(path)
        self._policy = policy
        self._lifecycle = lifecycle
        self._reports: deque[Callable[[], None]] = deque()
        self._starts = StartQueue()
        self._last_starts: dict[Child, StopTerms] = {}  # of those that start only to drain what waits
        self._stops = StopQueue()
        self._patience = Patience()
        self._ending = False
        self._terms = StopTerms()
        self._wakeup = Wakeup()
        self._live = False  # whether it can start anybody

    # --- wishes; they only note what is wanted ---------------------------------------------------

    def add(self, child: Child) -> None:
        """Take in a child; it starts after those added before it."""
        self.children[child.name] = child
        self._schedule(child, AT_ONCE)

    def revive(self, child: Child) -> None:
        """Start a child that is down again."""
        if child.phase is Phase.DOWN:
            child.crashes_in_a_row = 0
            child.phase = Phase.WAITING
            child.revive()
            self._lifecycle.emit("revived", child.path)
            self._schedule(child, AT_ONCE)

    def stop_child(self, child: Child, grace: float | None, *, drain: bool) -> None:
        """Stop a child for good, now, whatever else is going on."""
        child.removing = True
        now = trio.current_time()
        if child.life is not None:
            self._begin_stop(child, grace, drain=drain)
        elif drain and self._may_start_to_drain(child, now):
            child.stop(grace, drain=True)  # it takes no more messages
            terms = StopTerms(grace, drain=True)
            self._last_starts[child] = terms.hastened(self._last_starts.get(child, terms))
        else:
            self._remove(child)
        self._wakeup.wake()

    def begin_stop(self, grace: float | None = None, *, drain: bool = False, for_good: bool = True) -> None:
        """Stop all children in reverse order and end; for good, or until `prepare` is called.

        Called again, it can only hasten the end.
        """
        terms = StopTerms(grace, drain=drain)
        self._terms = terms.hastened(self._terms) if self._ending and self.closed else terms
        self.closed = self.closed or for_good
        self.state = ActorState.STOPPING
        self._ending = True
        due = self._starts.clear(trio.current_time())
        if self._terms.drain:
            self._last_starts.update((child, self._terms) for child in due if not child.launches)
        else:
            self._last_starts.clear()
        self._stops.clear()
        for child in reversed(tuple(self.children.values())):
            if child.phase is Phase.STOPPING:
                self._stop_in_turn(child)  # its turn has come already
            else:
                self._stops.add(child)
        self._wakeup.wake()

    def terminate(self, state: ActorState, error: Exception | None = None) -> None:
        """No child will live again, unless `revive_children` is called: tell all who wait for them."""
        self.state = state
        for child in tuple(self.children.values()):
            if state is ActorState.DOWN:
                child.phase = Phase.DOWN
                child.terminate(state, error)
            else:
                self._remove(child, ActorUnresponsive(child.path) if child.phase is Phase.STUCK else None)
        if state is ActorState.DOWN:
            self.failure = error
        else:
            self.closed = True
            self.ended.set()

    # --- reports of children -----------------------------------------------------------------------

    def child_started(self, child: Child, life: object) -> None:
        """A child is ready."""
        self._reports.append(partial(self._on_started, child, life))
        self._wakeup.wake()

    def child_ending(self, child: Child, life: object, within: float) -> None:
        """A child began to end, of itself."""
        self._reports.append(partial(self._on_ending, child, life, trio.current_time() + within))
        self._wakeup.wake()

    def child_exited(self, child: Child, life: object, how: Exit) -> None:
        """A child's task, if it had one, is about to return."""
        self._reports.append(partial(self._on_exit, child, life, how))
        self._wakeup.wake()

    # --- the loop ------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Get ready for `run`; from here on, what is wished for counts."""
        self.state = ActorState.STARTING
        self.failure = None
        self._ending = False
        self._terms = StopTerms()
        self._policy.forget()
        self._stops.clear()
        self._last_starts.clear()
        self._live = True
        self._lifecycle.emit("starting", self.path or "/")
        for child in self.children.values():
            if child.phase is Phase.DOWN:
                child.revive()
            child.phase = Phase.WAITING
            self._schedule(child, AT_ONCE)

    async def run(
        self, on_started: Callable[[], None], on_quiet: Callable[[], None] = lambda: None
    ) -> Exception | None:
        """Supervise until told to stop, or until the restart intensity is exceeded.

        Returns the failure to escalate, or None. Calls `on_started` once all children that were there
        at the beginning have started, or have failed to; and `on_quiet` when all have ended but those
        that ignore cancellation, for which nothing but this method waits. Cancelled, all children are
        cancelled at once, in no order.
        """
        try:
            async with trio.open_nursery() as nursery:
                try:
                    await self._loop(nursery, on_started)
                finally:
                    self._live = False
                    for child in self.children.values():
                        child.forsake()
                on_quiet()
        finally:
            self._ending = True  # by cancellation too; what the children said of it is still to be heard
            self._take_reports()
        return self.failure

    async def _loop(self, nursery: trio.Nursery, on_started: Callable[[], None]) -> None:
        while True:
            self._take_reports()
            self._give_up_overdue()
            self._advance_last_starts(nursery)
            self._advance_stops()
            if self._ending:
                if not (self._last_starts or self._stops or self._patience):
                    return
            else:
                self._advance_starts(nursery)
                if self.state is ActorState.STARTING and not self._is_starting():
                    self.state = ActorState.RUNNING
                    on_started()
            await self._wakeup.wait(min(self._patience.next_end(), self._next_start()))

    def _take_reports(self) -> None:
        while self._reports:
            self._reports.popleft()()

    # --- starting --------------------------------------------------------------------------------------

    def _schedule(self, child: Child, due: float) -> None:
        self._starts.schedule(child, due)
        self._wakeup.wake()

    def _next_start(self) -> float:
        """When the next child may be started; never, while others have to stop or start first."""
        if self._ending or self._stops or self._starts.awaited:
            return inf
        return self._starts.next_due()

    def _is_starting(self) -> bool:
        return self._starts.awaited is not None or self._next_start() <= trio.current_time()

    def _advance_starts(self, nursery: trio.Nursery) -> None:
        now = trio.current_time()
        for _ in range(BATCH):
            if self._next_start() > now:
                return
            child = self._starts.pop()
            if child.phase is Phase.WAITING and self._launch(child, nursery, now):
                self._starts.awaited = child

    def _may_start_to_drain(self, child: Child, now: float) -> bool:
        new = self._live and not child.launches  # who was there before does not come back to drain
        return (new and child.has_messages() and self._starts.take(child, now)) or child in self._last_starts

    def _advance_last_starts(self, nursery: trio.Nursery) -> None:
        """Start those that end when what waits is handled; they have their grace, and wait for nobody."""
        now = trio.current_time()
        for child in tuple(islice(self._last_starts, BATCH)):
            terms = self._last_starts.pop(child)
            self._launch(child, nursery, now)
            if child.removing and child.life is not None:
                self._begin_stop(child, terms.grace, drain=True)
        if self._last_starts:
            self._wakeup.wake()

    def _launch(self, child: Child, nursery: trio.Nursery, now: float) -> bool:
        """Begin a life of `child`; returns whether it takes time to start."""
        child.ready_at = inf
        child.waits_no_longer()
        try:
            ready = child.launch(nursery)
        except Exception as error:  # noqa: BLE001 - whatever the factory raises is a failed start
            child.crashed(error)
            self._on_exit(child, child.life, Exit(error))
            return False
        if ready:
            self._is_ready(child, now)
        else:
            child.phase = Phase.STARTING
            self._patience.bound(child, now + child.start_bound())
        return not ready

    def _is_ready(self, child: Child, now: float) -> None:
        child.phase = Phase.RUNNING
        child.ready_at = now
        self._lifecycle.emit("started", child.path)

    def _on_started(self, child: Child, life: object) -> None:
        if child.life is life and child.phase is Phase.STARTING and child not in self._stops:
            self._starts.release(child)
            self._patience.release(child)
            self._is_ready(child, trio.current_time())

    # --- stopping --------------------------------------------------------------------------------------

    def _advance_stops(self) -> None:
        if self._last_starts:  # they may need those that would be stopped first
            return
        for _ in range(BATCH):
            child = self._stops.pop()
            if child is None:
                return
            self._stop_in_turn(child)
            self._take_reports()  # without a task to wait for, the end has come already
        self._wakeup.wake()

    def _stop_in_turn(self, child: Child) -> None:
        child.removing = child.removing or (self._ending and self.closed)
        if child.life is not None:
            self._begin_stop(child, self._terms.grace, drain=self._terms.drain)
        elif child.removing:
            self._remove(child)

    def _begin_stop(self, child: Child, grace: float | None, *, drain: bool) -> None:
        child.stop(grace, drain=drain)
        if child.phase is Phase.STUCK:
            if child.removing:
                self._remove(child, ActorUnresponsive(child.path))
            return
        give_up_at = trio.current_time() + child.stop_bound(grace)
        if child.phase is Phase.STOPPING:
            give_up_at = min(give_up_at, child.give_up_at)
        child.phase = Phase.STOPPING
        self._patience.bound(child, give_up_at)

    def _give_up_overdue(self) -> None:
        for child in self._patience.lose(trio.current_time()):
            self._starts.release(child)
            child.phase = Phase.STUCK
            error = ActorUnresponsive(child.path)
            self._lifecycle.emit("unresponsive", child.path, error)
            if child.removing:
                self._remove(child, error)

    def _remove(self, child: Child, error: Exception | None = None) -> None:
        if child.phase is Phase.ENDED:
            return
        child.phase = Phase.ENDED
        child.waits_no_longer()
        self._starts.cancel(child)
        self._last_starts.pop(child, None)
        self._stops.cancel(child)
        del self.children[child.name]
        child.terminate(ActorState.STOPPED, error)
        if child.life is None:
            self._lifecycle.emit("stopped", child.path, error)

    # --- ends ------------------------------------------------------------------------------------------

    def _on_ending(self, child: Child, life: object, give_up_at: float) -> None:
        if child.life is life and child.phase is Phase.RUNNING:
            self._patience.bound(child, give_up_at)

    def _on_exit(self, child: Child, life: object, how: Exit) -> None:
        if child.life is not life:
            return
        child.life = None
        self._patience.release(child)
        self._starts.release(child)
        was_stuck = child.phase is Phase.STUCK
        if child.phase is Phase.ENDED:  # given up long ago
            self._lifecycle.emit("stopped", child.path, how.error)
        elif how.unwound or self._was_to_end(child) or (was_stuck and how.error is None):
            self._on_end(child, how)
            if was_stuck and child.phase is Phase.WAITING and not self._ending:
                self._schedule(child, AT_ONCE)
        elif how.error is not None or child.restart == "permanent":
            self._on_crash(child, how.error or RuntimeError("it finished, and is permanent"))
        else:
            self._remove(child)

    def _was_to_end(self, child: Child) -> bool:
        return self._ending or child.removing or child.phase is Phase.STOPPING or child in self._stops

    def _on_end(self, child: Child, how: Exit) -> None:
        """A child ended that was to end; if it crashed while at it, that counts no more."""
        if how.error is not None:
            self._lifecycle.emit("crashed", child.path, how.error)
        if child.removing or (self._ending and self.closed):
            self._remove(child, how.error)
        else:
            child.phase = Phase.WAITING
            child.restarting()

    def _on_crash(self, child: Child, error: Exception) -> None:
        self._lifecycle.emit("crashed", child.path, error)
        child.phase = Phase.WAITING
        if child.restart == "temporary":
            self._remove(child, error)
            return
        now = trio.current_time()
        delay = self._policy.delay(child, error, now)
        if delay is not None:
            self._lifecycle.emit("restarting", child.path, error, delay)
            child.restarting()
            self.restarts += 1
            self._restart_group(child, now + delay)
        elif self._policy.on_excess == "isolate":
            child.phase = Phase.DOWN
            child.terminate(ActorState.DOWN, error)
            self._lifecycle.emit("down", child.path, error)
        else:
            child.restarting()  # with its supervisor, if at all
            self.failure = self._policy.excess(child, error)
            self._lifecycle.emit("escalated", self.path or "/", self.failure)
            self.begin_stop(for_good=False)

    def _restart_group(self, child: Child, due: float) -> None:
        """Stop, in reverse order, whom the strategy restarts with `child`; start all in order from `due` on.

        Who is backing off already does so to the end, and those after it wait.
        """
        members = self._policy.group(child, self.children.values())
        for member in reversed(members):
            if member is not child and member.restart == "temporary":
                member.removing = True
            if member.life is not None or member.removing:
                self._stops.add(member)
        for member in members:
            if member.phase is not Phase.DOWN and not member.removing:
                due = max(due, self._starts.due(member))
                self._schedule(member, due)
