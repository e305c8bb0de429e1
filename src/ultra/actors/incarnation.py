"""One incarnation of an actor: from `on_start` over its workers to `on_stop`.

A message costs no task, nursery or cancel scope of its own: workers persist, park when the inbox is
empty, and take the next message themselves. An ask is two reschedules, one each way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from msgspec import Struct
from trio.lowlevel import Abort, checkpoint, current_task, reschedule, wait_task_rescheduled

from ultra.actors.actor import Actor
from ultra.actors.message import Failure
from ultra.errors import ActorCrashed, ActorStopped

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio.lowlevel import Task

    from ultra.actors.cell import Cell
    from ultra.actors.message import Envelope

__all__ = ["Exit", "Incarnation"]

TURNS_BEFORE_YIELD = 32
"""How many messages a worker handles before it lets other tasks run, if its handlers never block."""


class Exit(Struct, frozen=True):
    """How an incarnation ended: crashed by `error`; else of its own will (`finished`), or stopped."""

    error: Exception | None
    finished: bool = False


class _Worker:
    """A place for one handler: the task, and the message that it has in hand."""

    __slots__ = ("crash", "envelope", "idle", "task")

    def __init__(self, idle: list[_Worker]) -> None:
        self.idle = idle
        self.task: Task | None = None
        self.envelope: Envelope | None = None
        self.crash: Exception | None = None

    async def park(self) -> None:
        """Wait for `wake`; cancelled, the worker is no longer among the idle ones."""
        self.task = current_task()
        self.idle.append(self)
        await wait_task_rescheduled(self._abort)

    def wake(self) -> None:
        """Let the worker look into the inbox; it must have been taken from the idle ones."""
        if self.task is not None:
            reschedule(self.task)

    def _abort(self, _raise_cancel: object) -> Abort:
        self.idle.remove(self)
        return Abort.SUCCEEDED


class Incarnation:
    """One life of the actor in `cell`. Make it in a clean context: it calls the actor's factory.

    Raises whatever the factory raises.
    """

    __slots__ = (
        "_crashes",
        "_draining",
        "_halted",
        "_idle",
        "_nursery",
        "_scope",
        "_stopping",
        "_workers",
        "actor",
        "cell",
    )

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        if cell.interceptor is not None:
            cell.interceptor.starting(cell)
        self.actor = cell.factory()
        self.actor._cell = cell  # noqa: SLF001 - two halves of one thing
        self._scope = trio.CancelScope()
        self._nursery: trio.Nursery | None = None
        self._workers: list[_Worker] = []
        self._idle: list[_Worker] = []
        self._crashes: list[Exception] = []
        self._halted = False
        self._draining = False
        self._stopping = False

    @property
    def starts_at_once(self) -> bool:
        """Whether the actor has no `on_start` that somebody might have to wait for."""
        return type(self.actor).on_start is Actor.on_start

    # --- from outside --------------------------------------------------------------------------------

    def wake(self) -> None:
        """A message has come: let an idle worker take it, or start one where there is room for it."""
        if self._idle:
            self._idle.pop().wake()
        elif self._nursery is not None and len(self._workers) < self.cell.options.concurrency:
            self._start_worker(self._nursery)

    def finish(self) -> None:
        """End of the actor's own will, once the messages in flight are handled."""
        self._halted = True
        self._wake_all()

    def stop(self, grace: float, *, drain: bool = False) -> None:
        """End, once the messages in flight are handled; after `grace` seconds they are cancelled.

        With `drain`, the messages in the inbox are handled first, within the same time.
        """
        self._stopping = True
        self._halted = not drain
        self._draining = drain
        self._scope.deadline = min(self._scope.deadline, trio.current_time() + grace)
        self._wake_all()

    # --- the life ------------------------------------------------------------------------------------

    async def live(self, on_started: Callable[[], None]) -> Exit:
        """Run to the end, and say how it was.

        Raises nothing but cancellation and its like; even then the messages in flight are settled and
        `on_stop` has run.
        """
        started = False
        try:
            with self._scope:
                if await self._start():
                    started = True
                    on_started()
                    await self._run_workers()
        finally:
            self._nursery = None
            self._settle_in_flight()
            if started:
                await self._stop_actor()
        if self._scope.cancelled_caught and not (started or self._stopping):
            limit = self.cell.options.start_timeout
            self._crashes.append(TimeoutError(f"on_start took longer than {limit:g} s"))
        error = self._error()
        return Exit(error, finished=error is None and not self._stopping)

    async def _start(self) -> bool:
        if self._halted:
            return False
        if self.starts_at_once:
            return True
        limit = trio.current_time() + self.cell.options.start_timeout
        self._scope.deadline = min(self._scope.deadline, limit)
        crash = await _crash_of(self.actor.on_start)
        if crash is not None:
            self._crashes.append(crash)
            return False
        if not self._stopping:
            self._scope.deadline = float("inf")
        return True

    async def _run_workers(self) -> None:
        concurrency = self.cell.options.concurrency
        if concurrency == 1:
            worker = _Worker(self._idle)
            self._workers.append(worker)
            await self._run_worker(worker)
            return
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for _ in range(min(concurrency, len(self.cell.inbox) or 1)):
                self._start_worker(nursery)

    def _start_worker(self, nursery: trio.Nursery) -> None:
        worker = _Worker(self._idle)
        self._workers.append(worker)
        nursery.start_soon(self._run_worker, worker)

    async def _run_worker(self, worker: _Worker) -> None:
        try:
            worker.crash = await _crash_of(self._handle_messages, worker)
        finally:
            # A worker ends only when all are about to. Once all have, the nursery takes no new ones.
            self._nursery = None
        if worker.crash is not None:
            self._crashes.append(worker.crash)
            self._scope.cancel()

    async def _handle_messages(self, worker: _Worker) -> None:
        cell = self.cell
        inbox, counts = cell.inbox, cell.counts
        receive = self.actor.receive
        plain = cell.interceptor is None and not cell.options.cancel_abandoned
        turns = TURNS_BEFORE_YIELD
        while not self._halted:
            envelope = inbox.take()
            if envelope is None:
                if self._draining:
                    return
                await worker.park()
                turns = TURNS_BEFORE_YIELD
                continue
            worker.envelope = envelope
            reply = await (receive(envelope.message) if plain else self._handle(envelope))
            worker.envelope = None
            inbox.finish(envelope)
            if type(reply) is Failure:
                counts.failed += 1
                envelope.fail(reply.error)
            elif reply is not _ABANDONED:
                counts.handled += 1
                envelope.succeed(reply)
            if inbox.waiting:
                cell.admit_waiting()
            turns -= 1
            if not turns:
                turns = TURNS_BEFORE_YIELD
                await checkpoint()

    async def _handle(self, envelope: Envelope) -> object:
        cell = self.cell
        if not cell.options.cancel_abandoned:
            return await self._intercepted(envelope)
        if envelope.abandoned:
            cell.discard(envelope, "abandoned")
            return _ABANDONED
        if type(self.actor).on_abandon is not Actor.on_abandon:
            envelope.handler = current_task()
            return await self._intercepted(envelope)
        reply: object = _ABANDONED
        with trio.CancelScope() as envelope.scope:
            reply = await self._intercepted(envelope)
        if reply is _ABANDONED:
            cell.discard(envelope, "abandoned")
        return reply

    def _intercepted(self, envelope: Envelope) -> Awaitable[object]:
        if self.cell.interceptor is None:
            return self.actor.receive(envelope.message)
        return self.cell.interceptor.handling(self.cell, envelope, self.actor.receive)

    # --- the end -------------------------------------------------------------------------------------

    def _wake_all(self) -> None:
        while self._idle:
            self._idle.pop().wake()

    def _settle_in_flight(self) -> None:
        """Requeue what the workers still had in hand, or give it up."""
        again = []
        for worker in self._workers:
            envelope = worker.envelope
            if envelope is None:
                continue
            worker.envelope = None
            envelope.scope = envelope.handler = None
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
        if type(self.actor).on_stop is Actor.on_stop:
            return
        limit = self.cell.options.stop_timeout
        crash = None
        with trio.CancelScope(shield=True, deadline=trio.current_time() + limit) as scope:
            crash = await _crash_of(self.actor.on_stop)
        if scope.cancelled_caught:
            crash = TimeoutError(f"on_stop took longer than {limit:g} s")
        if crash is not None:
            self._crashes.append(crash)

    def _error(self) -> Exception | None:
        if len(self._crashes) > 1:
            return ExceptionGroup(f"actor {self.cell.path!r} crashed in several places", self._crashes)
        return self._crashes[0] if self._crashes else None


_ABANDONED = object()
"""The reply of a handler that was cancelled because its asker went away."""


async def _crash_of(function: Callable[..., Awaitable[None]], *args: object) -> Exception | None:
    """Await the call and return the exception that left it, if it is one that counts as a crash.

    Cancellation, KeyboardInterrupt and the like pass through, also out of a group that has both.
    """
    try:
        await function(*args)
    except Exception as error:  # noqa: BLE001 - this is where crashes are told from everything else
        return error
    except BaseExceptionGroup as group:
        crash, rest = group.split(Exception)
        if rest is not None:
            raise rest from None
        return crash
    return None
