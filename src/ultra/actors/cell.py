"""The cell: what outlives an actor's incarnations. Its inbox, its counters, those who watch it."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct
from outcome import Value
from trio.lowlevel import Abort, checkpoint, current_task, reschedule, wait_task_rescheduled

from ultra.actors.actor import ActorRef
from ultra.actors.inbox import Admission, Inbox
from ultra.errors import ActorDown, ActorStopped, InboxFull

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from trio.lowlevel import Task

    from ultra.actors.actor import Actor, ActorOptions
    from ultra.actors.dead_letters import DeadLetterReason, DeadLetters
    from ultra.actors.incarnation import Incarnation
    from ultra.actors.message import Envelope

__all__ = ["ActorSnapshot", "ActorState", "Cell", "Interceptor", "StopRequest", "Terminated"]


class ActorState(Enum):
    """Where an actor is in its life."""

    STARTING = "starting"
    RUNNING = "running"
    RESTARTING = "restarting"
    STOPPING = "stopping"
    STOPPED = "stopped"
    DOWN = "down"


class ActorSnapshot(Struct, frozen=True, kw_only=True):
    """One actor at one moment.

    sent = handled + failed + rejected + dead_lettered + queued + in_flight. `queued` counts the
    messages that wait in the inbox or for room in it; `failed` are those answered with a `Failure`;
    `last_error` is the newest crash, as text.
    """

    name: str
    path: str
    state: ActorState
    queued: int
    in_flight: int
    sent: int
    handled: int
    failed: int
    rejected: int
    dead_lettered: int
    redelivered: int
    restarts: int
    last_error: str | None


class Terminated(Struct, frozen=True):
    """How an actor ended: stopped for good, or down after `error`."""

    path: str
    state: ActorState
    error: Exception | None = None


class Interceptor(Protocol):
    """What fault injection hooks into; an actor without one pays an ``is None`` a message."""

    def begin(self) -> None:
        """Called when a system that is intercepted starts."""

    def starting(self, cell: Cell) -> None:
        """Called before an incarnation is made; an exception from here is a failed start."""

    def sending(self, cell: Cell, envelope: Envelope, *, may_wait: bool) -> Admission | None:
        """Called for each message sent; None to go on, or what became of it, dealt with here already."""
        ...

    def handling(
        self, cell: Cell, envelope: Envelope, receive: Callable[[object], Awaitable[object]]
    ) -> Awaitable[object]:
        """Called in place of ``receive(envelope.message)``."""
        ...

    def ended(self, cell: Cell) -> Iterable[Envelope]:
        """Called when the actor has ended or is down; gives the messages that were held back from it."""
        ...


class StopRequest(Protocol):
    """How an actor, or a supervisor, tells the supervisor above that it is to be stopped for good."""

    def __call__(self, name: str, drain: bool, grace: float | None) -> None:  # noqa: FBT001
        """Begin to stop the child called `name`; returns at once."""


class Counts:
    """What became of the messages sent to one actor."""

    __slots__ = ("dead_lettered", "failed", "handled", "redelivered", "rejected", "sent")

    def __init__(self) -> None:
        self.sent = self.handled = self.failed = 0
        self.rejected = self.dead_lettered = self.redelivered = 0


class Cell:
    """One actor from its first start to its end. A supervisor owns it and decides over its lives."""

    __slots__ = (
        "closed",
        "counts",
        "dead_letters",
        "factory",
        "inbox",
        "incarnation",
        "interceptor",
        "last_error",
        "name",
        "on_abandon",
        "on_stop_request",
        "options",
        "path",
        "ref",
        "restarts",
        "state",
        "terminated",
        "watchers",
    )

    def __init__(
        self,
        path: str,
        factory: Callable[[], Actor],
        options: ActorOptions,
        *,
        dead_letters: DeadLetters,
        interceptor: Interceptor | None,
        on_stop_request: StopRequest,
    ) -> None:
        self.path = path
        self.name = path.rpartition("/")[2]
        self.factory = factory
        self.options = options
        self.dead_letters = dead_letters
        self.interceptor = interceptor
        self.on_stop_request = on_stop_request
        self.on_abandon = self._abandoned  # bound once: each ask takes it along
        self.inbox = Inbox(options.capacity, options.overflow, self._push_out)
        self.counts = Counts()
        self.ref = ActorRef(self)
        self.state = ActorState.STARTING
        self.incarnation: Incarnation | None = None
        self.restarts = 0
        self.last_error: Exception | None = None
        self.closed = False
        self.terminated: Terminated | None = None
        self.watchers: list[Task] | None = None

    # --- messages --------------------------------------------------------------------------------------

    def deliver(self, envelope: Envelope, *, may_wait: bool) -> Admission:
        """Put `envelope` into the inbox, or raise `InboxFull`, `ActorStopped` or `ActorDown`."""
        self.counts.sent += 1
        if self.interceptor is not None:
            admission = self.interceptor.sending(self, envelope, may_wait=may_wait)
            if admission is not None:
                return admission
        return self.admit(envelope, may_wait=may_wait)

    def admit(self, envelope: Envelope, *, may_wait: bool) -> Admission:
        """As `deliver`, for an envelope that was counted as sent and met the interceptor already."""
        if self.closed:
            self.counts.rejected += 1
            raise self._refusal()
        admission = self.inbox.put(envelope, may_wait=may_wait)
        if admission is Admission.REJECTED:
            self.counts.rejected += 1
            raise InboxFull(self.path, self.inbox.capacity, envelope.message)
        if self.incarnation is not None:
            self.incarnation.wake()
        return admission

    def admit_waiting(self) -> None:
        """Let messages that wait for room in, as many as there is room for."""
        while (envelope := self.inbox.admit_waiting()) is not None:
            envelope.admitted()
            if self.incarnation is not None:
                self.incarnation.wake()

    def discard(self, envelope: Envelope, reason: DeadLetterReason, error: Exception | None = None) -> None:
        """Record `envelope` as a dead letter; its asker, if it has one, gets `error`."""
        self.counts.dead_lettered += 1
        self.dead_letters.add(self.path, envelope.message, reason)
        if error is not None:
            envelope.fail(error)

    def _push_out(self, envelope: Envelope) -> None:
        self.discard(envelope, "overflow", InboxFull(self.path, self.inbox.capacity, envelope.message))

    def _abandoned(self, envelope: Envelope) -> None:
        if self.inbox.stop_waiting(envelope):
            self.counts.rejected += 1
        elif self.options.cancel_abandoned:
            if envelope.scope is not None:
                envelope.scope.cancel()
            elif envelope.handler is not None:
                if self.incarnation is not None:
                    self.incarnation.actor.on_abandon(envelope.handler)
            elif self.inbox.remove(envelope):
                self.discard(envelope, "abandoned")
                self.admit_waiting()

    def _refusal(self) -> ActorStopped:
        if self.state is ActorState.DOWN:
            return ActorDown(self.path, self.last_error)
        return ActorStopped(self.path)

    # --- the end ---------------------------------------------------------------------------------------

    def close(self, *, drain: bool = False) -> None:
        """Accept nothing more and, unless the inbox is to be drained, give back what waits in it."""
        self.closed = True
        accepted, waiting = self.inbox.clear(keep_accepted=drain)
        reason: DeadLetterReason = "down" if self.state is ActorState.DOWN else "stopped"
        for envelope in accepted:
            self.discard(envelope, reason, self._refusal())
        for envelope in waiting:
            self.counts.rejected += 1
            envelope.fail(self._refusal())

    def terminate(self, state: ActorState, error: Exception | None = None) -> None:
        """There will be no other incarnation, unless the actor is revived: tell all who wait."""
        self.state = state
        self.last_error = error or self.last_error
        self.incarnation = None
        self.close()
        if self.interceptor is not None:
            for envelope in self.interceptor.ended(self):
                envelope.fail(self._refusal())
        self.terminated = Terminated(self.path, state, error)
        for task in self.watchers or ():
            reschedule(task, Value(self.terminated))
        self.watchers = None

    def revive(self) -> None:
        """Accept messages again after `terminate`."""
        self.closed = False
        self.terminated = None
        self.state = ActorState.STARTING

    def request_stop(self, *, drain: bool, grace: float | None) -> None:
        """Hand the wish to stop to the supervisor; nothing happens when the end has come already."""
        if self.terminated is None or self.state is ActorState.DOWN:
            self.on_stop_request(self.name, drain, grace)

    def finish(self) -> None:
        """End the current incarnation normally."""
        if self.incarnation is not None:
            self.incarnation.finish()

    async def watch(self) -> Terminated:
        """Wait for `terminate`; see `ActorRef.watch`."""
        if self.terminated is not None:
            await checkpoint()
            return self.terminated
        task = current_task()
        watchers = self.watchers = self.watchers or []
        watchers.append(task)

        def stop_watching(_raise_cancel: object) -> Abort:
            watchers.remove(task)
            return Abort.SUCCEEDED

        terminated: Terminated = await wait_task_rescheduled(stop_watching)
        return terminated

    def snapshot(self) -> ActorSnapshot:
        """All numbers at this moment."""
        counts = self.counts
        return ActorSnapshot(
            name=self.name,
            path=self.path,
            state=self.state,
            queued=len(self.inbox) + self.inbox.waiting,
            in_flight=self.inbox.in_flight,
            sent=counts.sent,
            handled=counts.handled,
            failed=counts.failed,
            rejected=counts.rejected,
            dead_lettered=counts.dead_lettered,
            redelivered=counts.redelivered,
            restarts=self.restarts,
            last_error=None
            if self.last_error is None
            else f"{type(self.last_error).__name__}: {self.last_error}",
        )
