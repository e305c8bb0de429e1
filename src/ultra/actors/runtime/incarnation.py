"""One incarnation of an actor: from `on_start` over its workers to `on_stop`.

A message costs no task and no nursery of its own: workers persist, park when the inbox is empty, and take
the next message themselves. An ask is two reschedules, one each way.
"""

from __future__ import annotations

from contextvars import copy_context
from functools import partial
from math import inf
from typing import TYPE_CHECKING

import trio
from msgspec import Struct
from trio.lowlevel import checkpoint, current_task, reschedule

from ultra._support.log import get_logger
from ultra.actors.runtime.actor import Actor, new_actor
from ultra.actors.runtime.cell import ABANDONED
from ultra.actors.runtime.crash import CrashBarrier
from ultra.actors.runtime.worker import Worker
from ultra.errors import ActorCrashed, ActorStopped

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from contextvars import Context

    from trio.lowlevel import Task

    from ultra.actors.runtime.cell import Cell
    from ultra.actors.runtime.message import Envelope

__all__ = ["Exit", "Incarnation"]

log = get_logger("ultra.actors")

TURNS_BEFORE_YIELD = 32
"""How many messages a worker handles before it lets other tasks run, if its handlers never block."""


class Exit(Struct, frozen=True):
    """How an incarnation ended: crashed by `error`; else of its own will (`finished`), or stopped.

    `unwound`: by cancellation from further up, or by an exception that is no crash; all of the system is
    about to end so.
    """

    error: Exception | None
    finished: bool = False
    unwound: bool = False


class Incarnation:
    """One life of the actor in `cell`. Make it in a clean context: it calls the actor's factory.

    Raises whatever the factory raises.
    """

    __slots__ = (
        "_context",
        "_crashes",
        "_draining",
        "_halted",
        "_idle",
        "_nursery",
        "_scope",
        "_stop_by",
        "_stopping",
        "_width",
        "_workers",
        "actor",
        "cell",
        "task",
    )

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        if cell.interceptor is not None:
            cell.interceptor.starting(cell)
        self.actor = new_actor(cell)
        self.task: Task | None = None
        """The task that all of this life runs in, the workers of a wide actor excepted."""
        self._scope = trio.CancelScope()
        self._workers: dict[Task, Worker] = {}
        self._idle: list[Task] = []
        self._width = 0  # how many workers there are, or are about to be
        self._crashes: tuple[Exception, ...] = ()  # those that no worker caught
        self._halted = False
        self._draining = False
        self._stopping = False
        self._stop_by = inf
        # Where the next task is to be started, while one may be: first that of this life, and later, of
        # a wide actor, one for each worker.
        self._nursery: trio.Nursery | None = None
        self._context: Context | None = None

    @property
    def starts_at_once(self) -> bool:
        """Whether the actor has no `on_start` that somebody might have to wait for."""
        return type(self.actor).on_start is Actor.on_start

    @property
    def has_on_stop(self) -> bool:
        """Whether the actor has something to do in the end."""
        return type(self.actor).on_stop is not Actor.on_stop

    def runs_in(self, task: Task) -> bool:
        """Whether the actor's own code runs in `task`."""
        return task is self.task or task in self._workers

    @property
    def decides_itself(self) -> bool:
        """Whether the actor decides what becomes of a handler whose asker went away."""
        return self.cell.options.cancel_abandoned and type(self.actor).on_abandon is not Actor.on_abandon

    # --- from outside --------------------------------------------------------------------------------

    def begin(self, nursery: trio.Nursery, context: Context) -> None:
        """Start to live, in a task of `nursery`, in `context`.

        Where there is nothing to do before a message comes, the task is not started before either:
        most of the memory, and of the time, that an idle actor costs would be its task's.
        """
        self._nursery = nursery
        self._context = context
        if len(self.cell.inbox) or self.has_on_stop or not self.starts_at_once:
            self._start_task(nursery, context)

    def wake(self) -> None:
        """A message has come: let an idle worker take it, or start one, unless all are busy."""
        if self._idle:
            reschedule(self._idle[-1])  # raises in a foreign thread: then the worker still waits
            self._idle.pop()
        elif self._nursery is None or self._context is None:
            return
        elif self.task is None:
            self._start_task(self._nursery, self._context)
        elif self._width < self.cell.options.concurrency:
            # The caller's context is no business of the worker's.
            self._context.run(self._nursery.start_soon, self._run_worker)
            self._width += 1

    def finish(self) -> None:
        """End of the actor's own will, once the messages in flight are handled."""
        self._halted = True
        self._wake_all()
        if self.forsake():
            self.cell.owner.life_ended(self, Exit(None, finished=True))

    def stop(self, grace: float, *, drain: bool = False) -> None:
        """End, once the messages in flight are handled; after `grace` seconds they are cancelled.

        With `drain`, the messages in the inbox are handled first, within the same time. A second stop
        can only hasten the first.
        """
        drain = drain and not self._halted
        self._stopping = True
        self._halted = not drain
        self._draining = drain
        self._stop_by = min(self._stop_by, trio.current_time() + grace)
        self._scope.deadline = min(self._scope.deadline, self._stop_by)
        self._wake_all()
        if self.forsake():
            self.cell.owner.life_ended(self, Exit(None))

    def forsake(self) -> bool:
        """Start no task where none was needed so far; returns whether that ends this life."""
        if self.task is not None or self._nursery is None:
            return False
        self._nursery = None
        return True

    def fail_askers(self) -> None:
        """Nobody waits for the end of this life any more: neither shall those who asked something.

        Their messages are still being handled, and count as in flight until that is over.
        """
        for worker in self._workers.values():
            if worker.envelope is not None:
                worker.envelope.fail(ActorStopped(self.cell.path))

    # --- the life ------------------------------------------------------------------------------------

    async def live(self) -> None:
        """Run to the end, and tell the cell's owner of it.

        Raises nothing but cancellation and its like; even then the messages in flight are settled,
        `on_stop` has run, and the owner was told.
        """
        self.task = current_task()
        started = False
        try:
            try:
                with self._scope:
                    started = self.starts_at_once or await self._start()
                    if started:
                        self.cell.owner.life_started(self)
                    if started and self.cell.options.concurrency == 1:
                        with self._new_worker() as worker:
                            await self._handle_messages(worker)
                    elif started:
                        await self._run_workers()
            finally:
                self._halted = True
                self._settle_in_flight()
                if started and self.has_on_stop:
                    await self._stop_actor()
        except BaseException:
            self.cell.owner.life_ended(self, Exit(self._error(), unwound=True))
            raise
        self.cell.owner.life_ended(self, self._how_it_ended(started=started))

    def _start_task(self, nursery: trio.Nursery, context: Context) -> None:
        context.run(partial(nursery.start_soon, self.live, name=self.cell.path))
        self._nursery = None

    async def _start(self) -> bool:
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
        self._scope.deadline = self._stop_by
        return True

    def _started_too_slowly(self) -> TimeoutError:
        return TimeoutError(f"on_start took longer than {self.cell.options.start_timeout:g} s")

    def _new_worker(self) -> Worker:
        worker = Worker(current_task(), self._idle)
        self._workers[worker.task] = worker
        return worker

    async def _run_workers(self) -> None:
        self._context = copy_context()
        self._width = min(self.cell.options.concurrency, len(self.cell.inbox) or 1)
        async with trio.open_nursery() as self._nursery:
            for _ in range(self._width):
                self._nursery.start_soon(self._run_worker)

    async def _run_worker(self) -> None:
        with self._new_worker() as worker:
            try:
                await self._handle_messages(worker)
            finally:
                self._nursery = None  # a worker leaves when all are about to: no more of them
        if worker.crash is not None:
            self._halted = True
            self._scope.cancel()
            self.cell.owner.life_ending(self)

    async def _handle_messages(self, worker: Worker) -> None:
        turns = TURNS_BEFORE_YIELD
        while not self._halted:
            worker.envelope = self.cell.inbox.take()
            if worker.envelope is None:
                if self._draining:
                    return
                await worker.park()
                turns = TURNS_BEFORE_YIELD
                continue
            await self._handle(worker, worker.envelope)
            turns -= 1
            if not turns:
                turns = TURNS_BEFORE_YIELD
                await checkpoint()

    async def _handle(self, worker: Worker, envelope: Envelope) -> None:
        """Have the actor handle the message, and give its reply to the asker."""
        reply: object = ABANDONED
        if not self.cell.options.cancel_abandoned:
            reply = await self._receive(envelope)
        elif self.decides_itself:
            envelope.cancel_handler = partial(self._tell_actor, worker.task)
            reply = await self._receive(envelope)
        else:
            with trio.CancelScope() as scope:
                envelope.cancel_handler = scope.cancel
                reply = await self._receive(envelope)
        worker.envelope = None
        self.cell.settle(envelope, reply)

    def _receive(self, envelope: Envelope) -> Awaitable[object]:
        if self.cell.interceptor is None:
            return self.actor.receive(envelope.message)
        return self.cell.interceptor.handling(self.cell, envelope, self.actor.receive)

    def _tell_actor(self, handler: Task) -> None:
        try:
            self.actor.on_abandon(handler)
        except Exception:  # noqa: BLE001 - called by trio's cancellation, which must not be broken off
            log.write("error", "on_abandon failed", path=self.cell.path, exc_info=True)

    # --- the end -------------------------------------------------------------------------------------

    def _wake_all(self) -> None:
        while self._idle:
            reschedule(self._idle.pop())

    def _settle_in_flight(self) -> None:
        """Requeue what the workers still had in hand, or give it up."""
        again = []
        for worker in self._workers.values():
            envelope = worker.envelope
            if envelope is None:
                continue
            worker.envelope = None
            envelope.cancel_handler = None
            if self._may_redeliver(envelope):
                again.append(envelope)
            else:
                self.cell.inbox.finish(envelope)
                self._give_up(envelope, worker.crash)
        self.cell.counts.redelivered += len(again)
        self.cell.inbox.requeue(again)
        self.cell.admit_waiting()

    def _may_redeliver(self, envelope: Envelope) -> bool:
        options = self.cell.options
        if self.cell.closed or (options.cancel_abandoned and envelope.abandoned):
            return False
        return envelope.deliveries < options.max_deliveries

    def _give_up(self, envelope: Envelope, crash: Exception | None) -> None:
        cell = self.cell
        if cell.closed and crash is None:
            cell.discard(envelope, "stopped", ActorStopped(cell.path))
            return
        cause = crash or self._error() or ActorStopped(cell.path, "was restarted")
        cell.discard(envelope, "crashed", ActorCrashed(cell.path, cause, envelope.deliveries))

    async def _stop_actor(self) -> None:
        self.cell.owner.life_ending(self)
        limit = self.cell.options.stop_timeout
        barrier = CrashBarrier()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + limit) as scope, barrier:
            await self.actor.on_stop()
        if scope.cancelled_caught:
            self._crashes += (TimeoutError(f"on_stop took longer than {limit:g} s"),)
        if barrier.crash is not None:
            self._crashes += (barrier.crash,)

    def _how_it_ended(self, *, started: bool) -> Exit:
        if self._scope.cancelled_caught and not (started or self._stopping):
            self._crashes += (self._started_too_slowly(),)
        error = self._error()
        return Exit(error, finished=error is None and not self._stopping)

    def _error(self) -> Exception | None:
        crashes = [worker.crash for worker in self._workers.values() if worker.crash is not None]
        crashes += self._crashes
        if len(crashes) > 1:
            return ExceptionGroup(f"actor {self.cell.path!r} crashed in several places", crashes)
        return crashes[0] if crashes else None
