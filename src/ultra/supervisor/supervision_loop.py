"""The supervision loop: starts, watches, restarts and stops the children of one supervisor.

It is a state machine with a single place where it waits, at the end of `_loop`. Children report into a
queue and never raise into the nursery; a call that adds or stops a child only notes what is wanted and
wakes the loop. So no two decisions overlap, and a late report of an older incarnation or of an older timer
is recognised when its turn comes.
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
from ultra.errors import ActorDown, ActorStopped, ActorUnresponsive
from ultra.supervisor.child import Child, Phase
from ultra.supervisor.schedule import AT_ONCE, Deadlines, StartQueue, StopQueue, StopTerms

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.lowlevel import Task

    from ultra.supervisor.lifecycle import Lifecycle
    from ultra.supervisor.restart_policy import RestartPolicy

__all__ = ["SupervisionLoop"]

BATCH = 64
"""How many children are started, or stopped, in one go before other tasks get their turn."""


class SupervisionLoop:
    """Start and end the children of the supervisor at `path`; the `Parent` of these children.

    Attributes:
        children: by name, in the order in which they were added.
        closed: whether this supervisor has ended, or is ending, for good.
        ended: set when it has ended for good.
        failure: what it escalates, or why it is down.
        restarts: how many restarts of children there were.
    """

    def __init__(self, path: str, policy: RestartPolicy, lifecycle: Lifecycle) -> None:
        self.path = path
        self.children: dict[str, Child] = {}
        self.state = ActorState.STARTING
        self.closed = False
        self.ended = trio.Event()
        self.failure: Exception | None = None
        self.restarts = 0
        self.child: Child | None = None
        """This supervisor as a child of the one above it."""
        self._policy = policy
        self._lifecycle = lifecycle
        self._reports: deque[Callable[[], None]] = deque()
        self._starts = StartQueue()
        self._starts_to_drain: dict[Child, StopTerms] = {}  # they start only to handle what waits for them
        self._stops = StopQueue()
        self._deadlines = Deadlines()
        self._stop_terms = StopTerms()
        self._ending = False
        self._making: Child | None = None  # its factory is being called
        self._can_start = False  # whether there is a nursery to start children in
        self._wakeup = trio.Event()

    # --- what the supervisor and its parent ask -------------------------------------------------------

    def check_open(self) -> None:
        """Raise `ActorStopped`, or `ActorDown`, if this supervisor takes no children."""
        if self.closed:
            raise ActorStopped(self.path or "/")
        if self.state is ActorState.DOWN:
            raise ActorDown(self.path, self.failure)

    def has_messages(self) -> bool:
        """Return whether messages wait for any actor below this supervisor."""
        return any(child.has_messages() for child in self.children.values())

    def max_stop_time(self, grace: float | None) -> float:
        """Return how many seconds the children may take to stop, one after the other."""
        return sum(child.max_stop_time(grace) for child in self.children.values())

    def revive_children(self) -> None:
        """Take messages and children again after `terminate`; they start when this supervisor does."""
        self.state = ActorState.STARTING
        for child in self.children.values():
            child.phase = Phase.WAITING
            child.revive()

    # --- requests: they only note what is wanted -------------------------------------------------------

    def add(self, child: Child) -> None:
        """Add a child; it starts after those added before it."""
        self.children[child.name] = child
        self._schedule(child, AT_ONCE)

    def revive(self, child: Child) -> None:
        """Start a child that is down again."""
        if child.phase is Phase.DOWN:
            with self._lifecycle:
                child.crashes_in_a_row = 0
                child.phase = Phase.WAITING
                child.revive()
                self._lifecycle.emit("revived", child.path)
                self._schedule(child, AT_ONCE)

    def stop_child(self, child: Child, grace: float | None, *, drain: bool) -> None:
        """Stop a child for good, now, whatever else is going on."""
        with self._lifecycle:
            self._stop_child(child, grace, drain=drain)

    def _stop_child(self, child: Child, grace: float | None, *, drain: bool) -> None:
        child.removing = True
        now = trio.current_time()
        if child is self._making:  # by its own factory: it is stopped when there is something to stop
            terms = StopTerms(grace, drain=drain)
            self._starts_to_drain[child] = terms.combined(self._starts_to_drain.get(child, terms))
            return
        if child.incarnation is not None:
            self._begin_stop(child, grace, drain=drain)
        elif drain and self._may_start_to_drain(child, now):
            child.stop(grace, drain=True)  # it takes no more messages
            terms = StopTerms(grace, drain=True)
            self._starts_to_drain[child] = terms.combined(self._starts_to_drain.get(child, terms))
        else:
            self._remove(child)
        self._wakeup.set()

    def begin_stop(self, grace: float | None = None, *, drain: bool = False, for_good: bool = True) -> None:
        """Stop all children in reverse order and end; for good, or until `prepare` is called.

        Called again, it can only make the end come sooner.
        """
        terms = StopTerms(grace, drain=drain)
        self._stop_terms = terms.combined(self._stop_terms) if self._ending and self.closed else terms
        self.closed = self.closed or for_good
        self.state = ActorState.STOPPING
        self._ending = True
        due = self._starts.clear(trio.current_time())
        if self._stop_terms.drain:
            new = [child for child in due if not child.start_count]
            self._starts_to_drain.update(dict.fromkeys(new, self._stop_terms))
        else:
            self._starts_to_drain.clear()
        self._stops.clear()
        for child in reversed(tuple(self.children.values())):
            if child.phase is Phase.STOPPING:
                self._stop_in_turn(child)  # its turn has come already
            else:
                self._stops.add(child)
        self._wakeup.set()

    def terminate(self, state: ActorState, error: Exception | None = None) -> None:
        """Tell all who wait for a child that none will start again, unless `revive_children` is called."""
        with self._lifecycle:
            self._terminate(state, error)

    def _terminate(self, state: ActorState, error: Exception | None) -> None:
        self.state = state
        for child in tuple(self.children.values()):
            if state is ActorState.DOWN:
                child.phase = Phase.DOWN
                child.terminate(state, error)
            else:
                unresponsive = child.phase is Phase.UNRESPONSIVE
                self._remove(child, ActorUnresponsive(child.path) if unresponsive else None)
        if state is ActorState.DOWN:
            self.failure = error
        else:
            self.closed = True
            self.ended.set()

    # --- who waits for whom --------------------------------------------------------------------------

    def waits_for_start(self, child: Child, task: Task) -> bool:
        """Return whether `child` cannot start before code that runs in, or below, `task` has returned."""
        starting = self._starts.starting
        if starting is not None and starting.starts_in(task):
            return starting is child or child.phase is not Phase.STARTING
        return self.child is not None and self.child.waits_for_start(task)

    def starts_in(self, task: Task) -> bool:
        """Return whether a child is starting, and its code runs in `task` or in a task around that."""
        starting = self._starts.starting
        return starting is not None and starting.starts_in(task)

    # --- reports of children -----------------------------------------------------------------------

    def child_started(self, child: Child, incarnation: object) -> None:
        """Take note that a child is ready."""
        self._reports.append(partial(self._on_started, child, incarnation))
        self._wakeup.set()

    def child_ending(self, child: Child, incarnation: object, within: float) -> None:
        """Take note that a child began to end by itself, and should need at most `within` seconds."""
        self._reports.append(partial(self._on_ending, child, incarnation, trio.current_time() + within))
        self._wakeup.set()

    def child_exited(self, child: Child, incarnation: object, reason: Exit) -> None:
        """Take note that an incarnation has ended; its task, if it had one, is about to return."""
        self._reports.append(partial(self._on_exit, child, incarnation, reason))
        self._wakeup.set()

    # --- the loop ------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Get ready for `run`; from here on, requests count."""
        self.state = ActorState.STARTING
        self.failure = None
        self._ending = False
        self._stop_terms = StopTerms()
        self._policy.forget()
        self._stops.clear()
        self._starts_to_drain.clear()
        self._can_start = True
        with self._lifecycle:
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

        Return the failure to escalate, or None. Call `on_started` once all children that were there at the
        beginning have started, or have failed to; and `on_quiet` when all have ended except those that
        ignore cancellation, for which nothing but this method waits. Cancelled, this cancels all children
        at once, in no order.

        Raises:
            RuntimeError: something other than this supervisor and its parent ended it.
        """
        was_told = False
        try:
            async with trio.open_nursery(strict_exception_groups=True) as nursery:
                try:
                    await self._loop(nursery, on_started)
                    was_told = True
                finally:
                    self._can_start = False
                    for child in self.children.values():
                        child.cancel_lazy_start()
                on_quiet()
        finally:
            self._ending = True  # by cancellation too; the last reports of the children are still to be heard
            self._take_reports()
        if not was_told:  # what cancelled the nursery was swallowed by it
            raise RuntimeError(f"the supervisor {self.path or '/'!r} was ended by a task that nobody told to")
        return self.failure

    async def _loop(self, nursery: trio.Nursery, on_started: Callable[[], None]) -> None:
        while True:
            self._take_reports()
            self._give_up_overdue()
            self._advance_starts_to_drain(nursery)
            self._advance_stops()
            if self._ending:
                if not (self._starts_to_drain or self._stops or self._deadlines):
                    return
            else:
                self._advance_starts(nursery)
                if self.state is ActorState.STARTING and not self._is_starting():
                    self.state = ActorState.RUNNING
                    on_started()
            with trio.move_on_at(min(self._deadlines.next(), self._next_start())):
                await self._wakeup.wait()
            self._wakeup = trio.Event()

    def _take_reports(self) -> None:
        while self._reports:
            with self._lifecycle:
                self._reports.popleft()()

    # --- starting --------------------------------------------------------------------------------------

    def _schedule(self, child: Child, due: float) -> None:
        self._starts.schedule(child, due)
        self._wakeup.set()

    def _next_start(self) -> float:
        """Return when the next child may start; infinity while others have to stop or start first."""
        if self._ending or self._stops or self._starts.starting:
            return inf
        return self._starts.next_due()

    def _is_starting(self) -> bool:
        return self._starts.starting is not None or self._next_start() <= trio.current_time()

    def _advance_starts(self, nursery: trio.Nursery) -> None:
        now = trio.current_time()
        for _ in range(BATCH):
            if self._next_start() > now:
                return
            with self._lifecycle:
                child = self._starts.pop()
                if child.phase is Phase.WAITING and self._start(child, nursery, now):
                    self._starts.starting = child

    def _may_start_to_drain(self, child: Child, now: float) -> bool:
        if child in self._starts_to_drain:
            return True
        new = self._can_start and not child.start_count  # a child that ran before does not return to drain
        return new and child.has_messages() and self._starts.take(child, now)

    def _advance_starts_to_drain(self, nursery: trio.Nursery) -> None:
        """Start those that end when what waits is handled; they have their grace, and wait for no other."""
        now = trio.current_time()
        for child in tuple(islice(self._starts_to_drain, BATCH)):
            terms = self._starts_to_drain.pop(child, None)
            if terms is None:  # something stopped it otherwise
                continue
            with self._lifecycle:
                self._start(child, nursery, now)
                if child.removing and child.incarnation is not None:
                    self._begin_stop(child, terms.grace, drain=True)
        if self._starts_to_drain:
            self._wakeup.set()

    def _start(self, child: Child, nursery: trio.Nursery, now: float) -> bool:
        """Start a new incarnation of `child`; return whether it is still starting."""
        child.started_at = inf
        child.settle_pending_restart()
        self._making = child
        try:
            ready = child.start(nursery)
        except Exception as error:  # noqa: BLE001 - whatever the factory raises is a failed start
            self._starts_to_drain.pop(child, None)
            child.note_crash(error)
            self._on_exit(child, child.incarnation, Exit(error))
            return False
        finally:
            self._making = None
        if ready:
            self._is_ready(child, now)
        else:
            child.phase = Phase.STARTING
            self._deadlines.set(child, now + child.max_start_time())
        terms = self._starts_to_drain.pop(child, None)
        if terms is not None:  # its own factory stopped it
            self._begin_stop(child, terms.grace, drain=terms.drain)
        return not ready

    def _is_ready(self, child: Child, now: float) -> None:
        child.phase = Phase.RUNNING
        child.started_at = now
        self._lifecycle.emit("started", child.path)

    def _on_started(self, child: Child, incarnation: object) -> None:
        if child.incarnation is incarnation and child.phase is Phase.STARTING and child not in self._stops:
            self._starts.release(child)
            self._deadlines.cancel(child)
            self._is_ready(child, trio.current_time())

    # --- stopping --------------------------------------------------------------------------------------

    def _advance_stops(self) -> None:
        if self._starts_to_drain:  # they may need those that would be stopped first
            return
        for _ in range(BATCH):
            child = self._stops.pop()
            if child is None:
                return
            with self._lifecycle:
                self._stop_in_turn(child)
            self._take_reports()  # an incarnation without a task has ended already
        self._wakeup.set()

    def _stop_in_turn(self, child: Child) -> None:
        child.removing = child.removing or (self._ending and self.closed)
        if child.incarnation is not None:
            self._begin_stop(child, self._stop_terms.grace, drain=self._stop_terms.drain)
        elif child.removing:
            self._remove(child)

    def _begin_stop(self, child: Child, grace: float | None, *, drain: bool) -> None:
        child.stop(grace, drain=drain)
        if child.phase is Phase.UNRESPONSIVE:
            if child.removing:
                self._remove(child, ActorUnresponsive(child.path))
            return
        deadline = trio.current_time() + child.max_stop_time(grace)
        if child.phase is Phase.STOPPING:
            self._deadlines.shorten(child, deadline)
        else:
            self._deadlines.set(child, deadline)
        child.phase = Phase.STOPPING

    def _give_up_overdue(self) -> None:
        with self._lifecycle:
            for child in self._deadlines.pop_overdue(trio.current_time()):
                self._starts.release(child)
                child.phase = Phase.UNRESPONSIVE
                error = ActorUnresponsive(child.path)
                self._lifecycle.emit("unresponsive", child.path, error)
                if child.removing:
                    self._remove(child, error)

    def _remove(self, child: Child, error: Exception | None = None) -> None:
        if child.phase is Phase.ENDED:
            return
        child.phase = Phase.ENDED
        child.settle_pending_restart()
        self._starts.cancel(child)
        self._starts_to_drain.pop(child, None)
        self._stops.cancel(child)
        del self.children[child.name]
        child.terminate(ActorState.STOPPED, error)
        if child.incarnation is None:
            self._lifecycle.emit("stopped", child.path, error)

    # --- ends ------------------------------------------------------------------------------------------

    def _on_ending(self, child: Child, incarnation: object, deadline: float) -> None:
        if child.incarnation is incarnation and child.phase is Phase.RUNNING:
            self._deadlines.set(child, deadline)

    def _on_exit(self, child: Child, incarnation: object, reason: Exit) -> None:
        if child.incarnation is not incarnation:
            return
        child.incarnation = None
        self._deadlines.cancel(child)
        self._starts.release(child)
        was_unresponsive = child.phase is Phase.UNRESPONSIVE
        if child.phase is Phase.ENDED:  # it was given up before
            self._lifecycle.emit("stopped", child.path, reason.error)
        elif reason.unwound or self._was_to_end(child) or (was_unresponsive and reason.error is None):
            self._on_expected_end(child, reason)
            if was_unresponsive and child.phase is Phase.WAITING and not self._ending:
                self._schedule(child, AT_ONCE)
        elif reason.error is not None or child.restart == "permanent":
            error = reason.error
            self._on_crash(child, RuntimeError("it finished, and is permanent") if error is None else error)
        else:
            self._remove(child)

    def _was_to_end(self, child: Child) -> bool:
        return self._ending or child.removing or child.phase is Phase.STOPPING or child in self._stops

    def _on_expected_end(self, child: Child, reason: Exit) -> None:
        """Deal with the end of a child that was to end; a crash on the way is reported, and not counted."""
        if reason.error is not None:
            self._lifecycle.emit("crashed", child.path, reason.error)
        if child.removing or (self._ending and self.closed):
            self._remove(child, reason.error)
        else:
            child.phase = Phase.WAITING
            child.mark_restarting()

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
            child.mark_restarting()
            self.restarts += 1
            self._restart_group(child, now + delay)
        elif self._policy.on_excess == "isolate":
            child.phase = Phase.DOWN
            child.terminate(ActorState.DOWN, error)
            self._lifecycle.emit("down", child.path, error)
        else:
            child.mark_restarting()  # with its supervisor, if at all
            self.failure = self._policy.excess(child, error)
            self._lifecycle.emit("escalated", self.path or "/", self.failure)
            self.begin_stop(for_good=False)

    def _restart_group(self, child: Child, due: float) -> None:
        """Stop, in reverse order, those that the strategy restarts with `child`; start all from `due` on.

        They start in order. A member that is backing off does so to the end, and those after it wait.
        """
        members = self._policy.group(child, self.children.values())
        for member in reversed(members):
            if member is not child and member.restart == "temporary":
                member.removing = True
            if member.incarnation is not None or member.removing:
                self._stops.add(member)
        for member in members:
            if member.phase is not Phase.DOWN and not member.removing:
                due = max(due, self._starts.due(member))
                self._schedule(member, due)
