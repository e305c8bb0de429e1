"""One incarnation of an actor: `on_start`, the workers that handle messages, `on_stop`.

A message costs no task and no nursery of its own: workers persist, park when the inbox is empty, and take
the next message themselves. An ask is two reschedules, one each way.
"""

from __future__ import annotations

from contextvars import copy_context
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Self

import trio
from msgspec import Struct
from trio.lowlevel import (
    Abort,
    cancel_shielded_checkpoint,
    checkpoint,
    current_task,
    enable_ki_protection,
    reschedule,
    wait_task_rescheduled,
)

from ultra._support.log import get_logger
from ultra.actors.runtime.actor import Actor, new_actor
from ultra.actors.runtime.cell import ABANDONED
from ultra.actors.runtime.crash import CrashBarrier, follows_cancellation
from ultra.errors import ActorCrashed, ActorStopped

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from contextvars import Context
    from types import TracebackType

    from trio.lowlevel import Task

    from ultra.actors.runtime.cell import Cell
    from ultra.actors.runtime.message import Envelope

__all__ = ["Exit", "Incarnation"]

log = get_logger("ultra.actors", ownerless=True)

MOST_IDLE = 64
"""How many workers of one actor wait for messages; one that finds no message beside so many ends."""

MESSAGES_BEFORE_YIELD = 32
"""How many messages a worker handles before it lets other tasks run, if its handlers never block."""


class Exit(Struct, frozen=True):
    """How an incarnation ended: crashed by `error`; None: by its own decision, or stopped.

    `unwound`: by cancellation from further up, or by an exception that is no crash; the whole system is
    about to end in this way. No message: an argument of a call within the runtime, so `error` is the
    exception itself.
    """

    error: Exception | None
    unwound: bool = False


class Worker(CrashBarrier):
    """A task that handles one message after the other: the message in hand and, in the end, its crash."""

    __slots__ = ("_incarnation", "envelope", "idle", "retired", "task", "was_broken_off")

    def __init__(self, incarnation: Incarnation) -> None:
        super().__init__()
        self._incarnation = incarnation
        self.task = current_task()
        self.idle = incarnation.idle  # the tasks of all workers that wait for messages
        self.envelope: Envelope | None = None
        self.retired = False
        self.was_broken_off = False
        """Whether it crashed over its cancellation, after another had crashed."""

    def __enter__(self) -> Self:
        self._incarnation.worker_started(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if self.retired:
            return False
        self._incarnation.worker_ending()
        has_crashed = super().__exit__(kind, error, traceback)
        if has_crashed:
            self._incarnation.worker_crashed(self)
        return has_crashed

    def cancel(self) -> None:
        """Do what the actor says about a handler whose asker waits no longer."""
        self._incarnation.call_on_abandon(self.task)

    # Protected: a KeyboardInterrupt between the two lines would leave an idle worker that nobody may wake.
    @enable_ki_protection
    async def park(self) -> None:
        """Wait among the idle workers until a message has come."""
        self.idle[self.task] = None
        await wait_task_rescheduled(self._leave)

    def _leave(self, _raise_cancel: object) -> Abort:
        del self.idle[self.task]
        return Abort.SUCCEEDED


def _same_variables(context: Context, clean: Context) -> bool:
    # Contexts share their map until one is changed; so this looks at values only where one was set.
    try:
        return context == clean
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - the values' `__eq__` is anybody's code
        return False


class Incarnation:
    """Run the actor in `cell` once, from its start to its end.

    Make it in a clean context: it calls the actor's factory, and raises what that raises.
    """

    __slots__ = (
        "_abandoned_ends",
        "_context",
        "_crashes",
        "_draining",
        "_halted",
        "_has_started",
        "_nursery",
        "_scope",
        "_stop_deadline",
        "_stopping",
        "_worker_count",
        "_workers",
        "actor",
        "cell",
        "idle",
        "task",
    )

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        if cell.interceptor is not None:
            cell.interceptor.starting(cell)
        self.actor = new_actor(cell)
        # Whether a handler is cancelled when its asker goes away; an actor with `on_abandon` decides itself.
        self._abandoned_ends = (
            cell.options.cancel_abandoned and type(self.actor).on_abandon is Actor.on_abandon
        )
        self.task: Task | None = None
        """The task that all of this incarnation runs in, the workers of a wide actor excepted."""
        self._scope = trio.CancelScope()
        self._workers: dict[Task, Worker] = {}
        self.idle: dict[Task, None] = {}  # the one that parked last is woken first
        self._worker_count = 0  # including those that are about to start
        self._crashes: tuple[Exception, ...] = ()  # those that no worker caught
        self._has_started = self.starts_at_once
        self._halted = False  # no worker takes another message
        self._draining = False
        self._stopping = False
        self._stop_deadline = inf
        # Where the next task is to be started, while one may be: first that of the incarnation, and later,
        # of a wide actor, one for each worker.
        self._nursery: trio.Nursery | None = None
        self._context: Context | None = None

    @property
    def starts_at_once(self) -> bool:
        """Whether the actor has no `on_start` that has to be waited for."""
        return type(self.actor).on_start is Actor.on_start

    @property
    def has_on_stop(self) -> bool:
        """Whether the actor has an `on_stop` of its own."""
        return type(self.actor).on_stop is not Actor.on_stop

    @property
    def is_starting(self) -> bool:
        """Whether the actor takes no message yet, since its `on_start` has not returned."""
        return not self._has_started

    def runs_in(self, task: Task) -> bool:
        """Return whether the actor's own code runs in `task`."""
        return task is self.task or task in self._workers

    # --- from outside --------------------------------------------------------------------------------

    def start(self, nursery: trio.Nursery, context: Context) -> None:
        """Start in a task of `nursery`, in `context`.

        Where there is nothing to do before a message comes, the task is started with the first message:
        it would take most of the memory, and of the time, that an idle actor costs.
        """
        self._nursery = nursery
        self._context = context
        if len(self.cell.inbox) or self.has_on_stop or not self.starts_at_once:
            self._start_task(nursery, context)

    def wake(self) -> None:
        """Have an idle worker take the message that has come, or start a worker, unless all are busy."""
        if self.idle:
            reschedule(self.idle.popitem()[0])
        elif self._nursery is None or self._context is None:
            return
        elif self.task is None:
            self._start_task(self._nursery, self._context)
        elif self._worker_count < self.cell.options.concurrency:
            # Not in the context of the task that sends the message.
            self._context.run(self._nursery.start_soon, self._run_worker)
            self._worker_count += 1

    def finish(self) -> None:
        """End by the actor's own decision, once the messages in flight are handled."""
        self._halted = True
        self._wake_all()
        if self.cancel_lazy_start():
            self.cell.owner.incarnation_ended(self, Exit(None))

    def stop(self, grace: float, *, drain: bool = False) -> None:
        """End, once the messages in flight are handled; after `grace` seconds they are cancelled.

        With `drain`, the messages in the inbox are handled first, within the same time. A second stop
        can only make the end come sooner.
        """
        drain = drain and not self._halted
        self._stopping = True
        self._halted = not drain
        self._draining = drain
        self._stop_deadline = min(self._stop_deadline, trio.current_time() + grace)
        self._scope.deadline = min(self._scope.deadline, self._stop_deadline)
        self._wake_all()
        if self.cancel_lazy_start():
            self.cell.owner.incarnation_ended(self, Exit(None))

    def cancel_lazy_start(self) -> bool:
        """Never start the task, if none was needed so far; return whether that ends the incarnation."""
        if self.task is not None or self._nursery is None:
            return False
        self._nursery = None
        return True

    def fail_askers(self) -> None:
        """Give `ActorStopped` to the askers of the messages in flight, since nobody waits for the end.

        The messages are still being handled, and count as in flight until that is over.
        """
        for worker in self._workers.values():
            if worker.envelope is not None:
                worker.envelope.fail(ActorStopped(self.cell.path))

    # --- from start to end ---------------------------------------------------------------------------

    async def run(self) -> None:
        """Run to the end, and tell the cell's owner of it.

        Raises nothing but cancellation and its like; even then the messages in flight are settled,
        `on_stop` has run, and the owner was told.
        """
        self.task = current_task()
        started = False
        try:
            try:
                with self._scope:
                    started = self.starts_at_once or await self._start_actor()
                    if started:
                        self._has_started = True
                        self.cell.owner.incarnation_started(self)
                    if started and self.cell.options.concurrency == 1:
                        await self._run_worker()
                    elif started:
                        await self._run_workers()
            finally:
                self._halted = True
                self._settle_in_flight()
                if started and self.has_on_stop:
                    await self._stop_actor()
        except BaseException:
            self.cell.owner.incarnation_ended(self, Exit(self._error(), unwound=True))
            raise
        self.cell.owner.incarnation_ended(self, self._exit(started=started))

    def _start_task(self, nursery: trio.Nursery, context: Context) -> None:
        context.run(partial(nursery.start_soon, self.run, name=self.cell.path))
        self._nursery = None

    async def _start_actor(self) -> bool:
        """Call `on_start`; return whether the actor has started."""
        if self._halted:  # before it began
            return False
        limit = self.cell.options.start_timeout
        self._scope.deadline = min(self._scope.deadline, trio.current_time() + limit)
        with CrashBarrier() as barrier:
            await self.actor.on_start()
        if barrier.crash is not None:
            self._crashes += (barrier.crash,)
            return False
        if self._scope.cancel_called and not self._stopping:  # it ignored that, and returned too late
            self._crashes += (self._started_too_slowly(),)
            self._halted = True
        self._scope.deadline = self._stop_deadline
        return True

    def _started_too_slowly(self) -> TimeoutError:
        return TimeoutError(f"on_start took longer than {self.cell.options.start_timeout:g} s")

    # --- workers -------------------------------------------------------------------------------------

    async def _run_workers(self) -> None:
        self._context = copy_context()
        self._worker_count = min(self.cell.options.concurrency, len(self.cell.inbox) or 1)
        async with trio.open_nursery(strict_exception_groups=True) as self._nursery:
            for _ in range(self._worker_count):
                self._nursery.start_soon(self._run_worker)

    async def _run_worker(self) -> None:
        """Handle one message after the other, until the incarnation ends."""
        with Worker(self) as worker:
            left = MESSAGES_BEFORE_YIELD
            clean = copy_context()
            while not self._halted:
                envelope = worker.envelope = self.cell.inbox.take()
                if envelope is None:
                    if self._draining:
                        return
                    if len(self.idle) >= MOST_IDLE:
                        self._retire(worker)
                        return
                    await worker.park()
                    left = MESSAGES_BEFORE_YIELD
                    continue
                reply: object = ABANDONED
                if self._abandoned_ends:
                    with trio.CancelScope() as envelope.handler:
                        reply = await self._receive(envelope)
                else:
                    envelope.handler = worker  # which asks the actor, should the asker go away
                    reply = await self._receive(envelope)
                worker.envelope = None
                self.cell.settle(envelope, reply)
                del envelope, reply  # an idle worker keeps nothing alive
                left -= 1
                if not _same_variables(worker.task.context, clean):
                    # The next message must not see what this one has set. A task gets its new context when
                    # it is resumed.
                    worker.task.context = clean.copy()
                    left = MESSAGES_BEFORE_YIELD
                    await cancel_shielded_checkpoint()
                elif not left:
                    left = MESSAGES_BEFORE_YIELD
                    await checkpoint()

    def worker_started(self, worker: Worker) -> None:
        """Know of a worker, which runs in the current task."""
        self._workers[worker.task] = worker

    def worker_ending(self) -> None:
        """Start no more workers: one ends only when all are about to."""
        self._nursery = None

    def _retire(self, worker: Worker) -> None:
        """Let a worker of many end, for which there is no message: a burst must not cost memory for ever."""
        worker.retired = True
        self._worker_count -= 1
        del self._workers[worker.task]

    def worker_crashed(self, worker: Worker) -> None:
        """Let the crash of one worker of several end the others."""
        worker.was_broken_off = self._scope.cancel_called and follows_cancellation(worker.crash)
        if worker.task is not self.task:
            self._halted = True
            self._scope.cancel()
            self.cell.owner.incarnation_ending(self)

    def _receive(self, envelope: Envelope) -> Awaitable[object]:
        if self.cell.interceptor is None:
            return self.actor.receive(envelope.message)
        return self.cell.interceptor.handling(self.cell, envelope, self.actor.receive)

    def call_on_abandon(self, handler: Task) -> None:
        """Let the actor decide what becomes of this handler, whose asker waits no longer."""
        try:
            self.actor.on_abandon(handler)
        except Exception:
            log.exception("on_abandon failed", path=self.cell.path)

    def _wake_all(self) -> None:
        while self.idle:
            reschedule(self.idle.popitem()[0])

    # --- the end -------------------------------------------------------------------------------------

    def _settle_in_flight(self) -> None:
        """Put the messages that the workers still had in hand back into the inbox, or discard them."""
        again = []
        for worker in self._workers.values():
            envelope = worker.envelope
            if envelope is None:
                continue
            worker.envelope = None
            envelope.handler = None
            # The delivery counts only against a message that crashed the actor itself; unless it was to be
            # the only one, which somebody may rely on.
            innocent = worker.crash is None or worker.was_broken_off
            envelope.spared += innocent and self.cell.options.max_deliveries > 1
            if self._may_redeliver(envelope):
                again.append(envelope)
            else:
                self.cell.inbox.finish(envelope)
                self._discard(envelope, worker.crash)
        self.cell.counts.redelivered += len(again)
        self.cell.inbox.requeue(again)
        self.cell.admit_waiting()

    def _may_redeliver(self, envelope: Envelope) -> bool:
        options = self.cell.options
        if self.cell.closed or (options.cancel_abandoned and envelope.abandoned):
            return False
        return envelope.deliveries - envelope.spared < options.max_deliveries

    def _discard(self, envelope: Envelope, crash: Exception | None) -> None:
        cell = self.cell
        if cell.closed and crash is None:
            cell.discard(envelope, "stopped", ActorStopped(cell.path))
            return
        if crash is None and envelope.abandoned:
            cell.discard(envelope, "abandoned")
            return
        cause = ActorStopped(cell.path, "was restarted") if crash is None else crash
        counted = max(1, envelope.deliveries - envelope.spared)
        error = ActorCrashed(cell.path, cause, counted, blamed=crash is not None)
        cell.discard(envelope, "crashed", error)

    async def _stop_actor(self) -> None:
        """Call `on_stop`, shielded from cancellation, for `stop_timeout` seconds at most."""
        self.cell.owner.incarnation_ending(self)
        limit = self.cell.options.stop_timeout
        barrier = CrashBarrier()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + limit) as scope, barrier:
            await self.actor.on_stop()
        if scope.cancelled_caught:
            self._crashes += (TimeoutError(f"on_stop took longer than {limit:g} s"),)
        if barrier.crash is not None:
            self._crashes += (barrier.crash,)

    def _exit(self, *, started: bool) -> Exit:
        if self._scope.cancelled_caught and not (started or self._stopping):
            self._crashes += (self._started_too_slowly(),)
        return Exit(self._error())

    def _error(self) -> Exception | None:
        """Take the crashes from where they are kept, and return them as one.

        If they stayed there, each would refer to itself: traceback, frame, worker, crash.
        """
        crashes = [worker.crash for worker in self._workers.values() if worker.crash is not None]
        crashes += self._crashes
        self._crashes = ()
        for worker in self._workers.values():
            worker.crash = None
        if len(crashes) > 1:
            return ExceptionGroup(f"actor {self.cell.path!r} crashed in several places", crashes)
        return crashes[0] if crashes else None
