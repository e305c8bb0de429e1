"""The cell of an actor: what outlives its incarnations, such as inbox, counters and watchers.

After Akka's ``ActorCell``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from outcome import Value
from trio.lowlevel import (
    Abort,
    checkpoint,
    current_task,
    enable_ki_protection,
    reschedule,
    wait_task_rescheduled,
)

from ultra.actors.runtime.actor import ActorRef
from ultra.actors.runtime.home_run import HomeRun
from ultra.actors.runtime.inbox import Admission, Inbox
from ultra.actors.runtime.message import Failure
from ultra.actors.runtime.status import ActorSnapshot, ActorState, Counts, Terminated
from ultra.errors import ActorDown, ActorStopped, BadCall, InboxFull, UsageError, title_of
from ultra.errors.values import ErrorValue

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from trio.lowlevel import Task

    from ultra.actors.runtime.actor import Actor, ActorOptions
    from ultra.actors.runtime.dead_letters import DeadLetterReason, DeadLetters
    from ultra.actors.runtime.incarnation import Exit, Incarnation
    from ultra.actors.runtime.message import Envelope

__all__ = ["ABANDONED", "Cell", "Interceptor", "Owner", "check_faults"]

ABANDONED: Final = object()
"""The reply of a handler that was cancelled because its asker went away."""


@runtime_checkable
class Interceptor(Protocol):
    """What fault injection hooks into."""

    def begin(self) -> None:
        """Take note that a system starts."""

    def starting(self, cell: Cell) -> None:
        """Take note that an incarnation is to be made; an exception from here is a failed start."""

    def sending(self, cell: Cell, envelope: Envelope, *, may_wait: bool) -> Admission | None:
        """Deal with a message that was sent, and return what became of it; None to leave that to the cell."""
        ...

    def handling(
        self, cell: Cell, envelope: Envelope, receive: Callable[[object], Awaitable[object]]
    ) -> Awaitable[object]:
        """Return what to await in place of ``receive(envelope.message)``; may reply `ABANDONED`, too."""
        ...

    def ended(self, cell: Cell) -> Iterable[Envelope]:
        """Return the messages that were held back from an actor that has ended or is down."""
        ...


def check_faults(faults: object, kind: type = Interceptor) -> None:
    """Raise `BadCall` unless `faults` is None or an object with the methods of `kind`."""
    if faults is not None and (isinstance(faults, type) or not isinstance(faults, kind)):
        raise BadCall(f"faults is {faults!r}; it must be an ultra.faults.FaultPlan, or None")


class Owner(Protocol):
    """What decides when an actor starts and stops, and is told of it. Every method returns at once."""

    def stop_requested(self, *, drain: bool, grace: float | None) -> None:
        """Stop the actor for good."""

    def waits_for_start(self, task: Task) -> bool:
        """Return whether the actor cannot start before code that runs in, or below, `task` has returned."""
        ...

    def incarnation_started(self, incarnation: Incarnation) -> None:
        """Take note that `on_start` has returned; the first message comes next."""

    def incarnation_ending(self, incarnation: Incarnation) -> None:
        """Take note that the incarnation began to end by itself; it should need `stop_timeout` at most."""

    def incarnation_ended(self, incarnation: Incarnation, reason: Exit) -> None:
        """Take note that the incarnation has ended; its task, if it had one, is about to return."""


class Cell:
    """Keep one actor from its first start to its end. Its `owner` starts and stops its incarnations."""

    __slots__ = (
        "closed",
        "counts",
        "dead_letters",
        "factory",
        "home",
        "inbox",
        "incarnation",
        "interceptor",
        "last_error",
        "options",
        "owner",
        "path",
        "ref",
        "restarts",
        "state",
        "terminated",
        "watchers",
    )

    owner: Owner
    """Set by the owner itself, before anything else sees the cell."""

    def __init__(
        self,
        path: str,
        factory: Callable[[], Actor],
        options: ActorOptions,
        *,
        dead_letters: DeadLetters,
        interceptor: Interceptor | None,
        home: HomeRun | None = None,
    ) -> None:
        self.path = path
        self.factory = factory
        self.options = options
        self.dead_letters = dead_letters
        self.interceptor = interceptor
        self.home = home or HomeRun()
        self.inbox = Inbox(options.capacity, options.overflow)
        self.counts = Counts()
        self.ref = ActorRef(self)
        self.state = ActorState.STARTING
        self.incarnation: Incarnation | None = None
        self.restarts = 0
        self.last_error: Exception | None = None
        self.closed = False
        self.terminated: Terminated | None = None
        self.watchers: dict[Task, None] = {}

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]

    # --- messages --------------------------------------------------------------------------------------

    def deliver(self, envelope: Envelope, *, may_wait: bool) -> Admission:
        """Put `envelope` into the inbox, or raise `InboxFull`, `ActorStopped` or `ActorDown`."""
        self.home.check(self.path)
        self.counts.sent += 1
        if self.interceptor is not None:
            admission = self.interceptor.sending(self, envelope, may_wait=may_wait)
            if admission is not None:
                return admission
        return self.admit(envelope, may_wait=may_wait)

    def admit(self, envelope: Envelope, *, may_wait: bool) -> Admission:
        """Do as `deliver` does, for an envelope that was counted and shown to the interceptor already."""
        if self.closed:
            self.counts.rejected += 1
            raise self._refusal()
        admission = self.inbox.put(envelope, may_wait=may_wait)
        if admission == "rejected" and (oldest := self.inbox.make_room()) is not None:
            self.discard(oldest, "overflow", InboxFull(self.path, self.inbox.capacity, oldest.message))
            admission = self.inbox.put(envelope, may_wait=may_wait)
        if admission == "rejected":
            self.counts.rejected += 1
            raise InboxFull(self.path, self.inbox.capacity, envelope.message)
        if self.incarnation is not None:
            self.incarnation.wake()
        return admission

    def admit_waiting(self) -> None:
        """Accept messages that wait for room, as many as there is room for."""
        while (envelope := self.inbox.admit_waiting()) is not None:
            envelope.admitted()
            if self.incarnation is not None:
                self.incarnation.wake()

    def settle(self, envelope: Envelope, reply: object) -> None:
        """Count a message as handled, give its asker the `reply`, and its place in the inbox to another."""
        self.inbox.finish(envelope)
        if reply is ABANDONED:
            self.discard(envelope, "abandoned")
        elif isinstance(reply, Failure):
            self.counts.failed += 1
            envelope.fail(reply.error)
        else:
            self.counts.handled += 1
            envelope.succeed(reply)
        self.admit_waiting()

    def discard(self, envelope: Envelope, reason: DeadLetterReason, error: Exception | None = None) -> None:
        """Record `envelope` as a dead letter; its asker, if it has one, gets `error`."""
        self.counts.dead_lettered += 1
        self.dead_letters.add(self.path, envelope.message, reason)
        if error is not None:
            envelope.fail(error)

    def refuse_own_wait(self, envelope: Envelope) -> None:
        """Take `envelope` back and raise `UsageError` if only the task that sends it could handle it."""
        incarnation = self.incarnation
        if incarnation is not None and incarnation.task is current_task():
            reason = (
                "waits for itself: nothing but the task that waits could take the message; use tell, call "
                "the method itself, or raise ActorOptions.concurrency"
            )
        elif (incarnation is None or incarnation.is_starting) and self.owner.waits_for_start(current_task()):
            reason = (
                "starts only when the on_start that asks it has returned, since children start one after the "
                "other; use tell, ask it later, or spawn it earlier"
            )
        else:
            return
        if self.inbox.remove(envelope) or self.inbox.stop_waiting(envelope):
            self.counts.rejected += 1
        raise UsageError(f"actor {self.path!r} {reason}")

    def abandoned(self, envelope: Envelope) -> None:
        """Cancel or drop the message, as far as that is due: its asker, or sender, waits no longer."""
        if self.inbox.stop_waiting(envelope):
            self.counts.rejected += 1
        elif self.options.cancel_abandoned:
            if envelope.handler is not None:
                envelope.handler.cancel()
            elif self.inbox.remove(envelope):
                self.discard(envelope, "abandoned")
                self.admit_waiting()

    def _refusal(self) -> ActorStopped:
        if self.state is ActorState.DOWN:
            return ActorDown(self.path, self.last_error)
        return ActorStopped(self.path)

    # --- the end ---------------------------------------------------------------------------------------

    def close(self, *, drain: bool = False) -> None:
        """Accept no more messages and, unless the inbox is to be drained, fail those that wait in it."""
        self.closed = True
        accepted, waiting = self.inbox.clear(keep_accepted=drain)
        reason: DeadLetterReason = "down" if self.state is ActorState.DOWN else "stopped"
        for envelope in accepted:
            self.discard(envelope, reason, self._refusal())
        for envelope in waiting:
            self.counts.rejected += 1
            envelope.fail(self._refusal())

    def terminate(self, state: ActorState, error: Exception | None = None) -> None:
        """Tell all who wait that there will be no other incarnation, unless the actor is revived."""
        self.state = state
        self.last_error = self.last_error if error is None else error
        self.close()
        if self.incarnation is not None:  # it ignores cancellation
            self.incarnation.fail_askers()
            self.incarnation = None
        if self.interceptor is not None:
            for envelope in self.interceptor.ended(self):
                envelope.fail(self._refusal())
        self.terminated = Terminated(self.path, state, None if error is None else ErrorValue.of(error))
        watchers, self.watchers = self.watchers, {}
        for task in watchers:
            reschedule(task, Value(self.terminated))

    def revive(self) -> None:
        """Accept messages again after `terminate`."""
        self.closed = False
        self.terminated = None
        self.state = ActorState.STARTING

    def request_stop(self, *, drain: bool, grace: float | None) -> None:
        """Ask the owner to stop the actor; do nothing if it has ended already."""
        self.home.check(self.path)
        if self.terminated is None or self.state is ActorState.DOWN:
            self.owner.stop_requested(drain=drain, grace=grace)

    def finish(self, actor: Actor) -> None:
        """End the current incarnation normally, if `actor` is its instance."""
        if self.incarnation is not None and self.incarnation.actor is actor:
            self.incarnation.finish()

    def refuse_own_tasks(self) -> None:
        """Raise `UsageError` if the actor's own handler is about to wait for the actor's end."""
        if self.incarnation is not None and self.incarnation.runs_in(current_task()):
            raise UsageError(
                f"actor {self.path!r} cannot wait for its own end in its own handler, which would have to "
                "end first; to end itself, an actor calls request_stop or finish"
            )

    @enable_ki_protection
    async def watch(self) -> Terminated:
        """Wait for `terminate`; see `ActorRef.watch`."""
        self.home.check(self.path)
        if (ended := self.terminated) is not None:  # a revival meanwhile does not undo that end
            await checkpoint()
            return ended
        self.refuse_own_tasks()
        task = current_task()
        self.watchers[task] = None

        def stop_watching(_raise_cancel: object) -> Abort:
            del self.watchers[task]
            return Abort.SUCCEEDED

        terminated: Terminated = await wait_task_rescheduled(stop_watching)
        return terminated

    def snapshot(self) -> ActorSnapshot:
        """Return the state and all numbers at this moment."""
        counts = self.counts
        error = self.last_error
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
            last_error=None if error is None else title_of(error),
        )
