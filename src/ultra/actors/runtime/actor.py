"""The actor that users write, and the reference through which everybody else talks to it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, TypeVar, get_args, overload

import trio
from msgspec import Struct
from trio.lowlevel import (
    cancel_shielded_checkpoint,
    checkpoint_if_cancelled,
    current_task,
    enable_ki_protection,
    wait_task_rescheduled,
)

from ultra.actors.runtime.inbox import Overflow
from ultra.actors.runtime.message import Envelope, Message
from ultra.errors import AskTimeout, BadCall

if TYPE_CHECKING:
    from trio.lowlevel import Task

    from ultra.actors.runtime.cell import Cell
    from ultra.actors.runtime.status import ActorSnapshot, Terminated

__all__ = ["Actor", "ActorOptions", "ActorRef"]

R = TypeVar("R")


class ActorOptions(Struct, frozen=True, kw_only=True):
    """How an actor takes its messages; all times are seconds.

    concurrency: how many handlers run at once. capacity: user messages accepted and not finished, the
    ones in flight included. overflow: what happens to a user message that finds the inbox full.
    max_deliveries: how often a message is handed to `receive` in all when handling it crashes the actor.
    cancel_abandoned: whether a handler is cancelled (or a queued message dropped) when its asker stops
    waiting. start_timeout bounds `on_start`, stop_timeout bounds `on_stop`, grace is how long handlers
    may finish after a stop before they are cancelled.
    """

    concurrency: int = 1
    capacity: int = 1000
    overflow: Overflow = "wait"
    max_deliveries: int = 2
    cancel_abandoned: bool = False
    start_timeout: float = 30.0
    stop_timeout: float = 5.0
    grace: float = 5.0

    def __post_init__(self) -> None:
        for name in ("concurrency", "capacity", "max_deliveries"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise BadCall(f"{name} is {value!r}; it must be a whole number of at least 1")
        for name in ("start_timeout", "stop_timeout", "grace"):
            value = getattr(self, name)
            if not value >= 0:
                raise BadCall(f"{name} is {value!r}; it must be a number of seconds, 0 or more")
        if self.overflow not in get_args(Overflow):
            raise BadCall(f"overflow is {self.overflow!r}; it must be one of {get_args(Overflow)}")
        # The inbox counts the messages in flight too, and what is dropped must not be in flight.
        least = self.concurrency + (self.overflow == "drop_oldest")
        if self.capacity < least:
            raise BadCall(
                f"capacity is {self.capacity} with a concurrency of {self.concurrency} and overflow "
                f"{self.overflow!r}; the capacity must be at least {least}, since it counts the "
                "messages in flight too"
            )


def check_grace(grace: float | None) -> None:
    """Raise `BadCall` unless `grace` is None or a number of seconds."""
    if grace is not None and not 0 <= grace < math.inf:
        raise BadCall(f"grace is {grace!r}; it must be a number of seconds, 0 or more")


class Actor:
    """Base of all actors: override `receive`, and `on_start` and `on_stop` where there is need.

    The runtime makes a new instance for each incarnation, so state that must outlive a crash lives
    elsewhere. `ref` refers to this actor, and goes on doing so after a restart. Not part of the
    instance: the inbox, which outlives it.
    """

    options: ClassVar[ActorOptions] = ActorOptions()

    _cell: Cell

    @property
    def ref(self) -> ActorRef:
        """The reference to this actor; usable from `on_start` on."""
        return self._cell.ref

    def finish(self) -> None:
        """End this incarnation normally once the messages in flight are handled.

        A permanent actor is then restarted; a transient or temporary one has ended. Does nothing once
        another incarnation has taken this one's place.
        """
        self._cell.finish(self)

    async def on_start(self) -> None:
        """Called before the first message. An exception here is a failed start, and counts as a crash."""

    async def receive(self, message: object) -> object:
        """Handle one message; what this returns is the reply.

        Return a `Failure` to raise an error in the asker. An exception that leaves this method crashes
        the actor: its supervisor decides what happens then.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how it receives messages")

    def on_abandon(self, handler: Task) -> None:
        """Called when the asker of a message in flight waits no longer, if `cancel_abandoned` is set.

        Override it where more than the asker may want the work: then this decides what becomes of the
        handler, which runs in the task `handler`, and the runtime does not cancel it. Must return at
        once and not raise.
        """

    async def on_stop(self) -> None:
        """Called after the last message, after a crash too, shielded from cancellation.

        It is cancelled when it takes longer than `ActorOptions.stop_timeout`.
        """


class ActorRef:
    """The address of an actor. Stays valid over restarts; two refs to one actor are equal."""

    __slots__ = ("_cell",)

    def __init__(self, cell: Cell) -> None:
        self._cell = cell

    @property
    def path(self) -> str:
        """The names of the supervisors above the actor and its own, such as ``/workers/echo``."""
        return self._cell.path

    def __repr__(self) -> str:
        return f"<ActorRef {self.path} {self._cell.state.value}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ActorRef) and other._cell is self._cell

    def __hash__(self) -> int:
        return hash(id(self._cell))

    def tell(self, message: object) -> None:
        """Put `message` into the inbox and go on; never blocks.

        For tasks of the same trio run; another thread calls it by `trio.from_thread.run_sync`.

        Raises:
            InboxFull: there is no room, and the actor does not drop its oldest message.
            ActorStopped: the actor has ended (`ActorDown`: it crashed too often).
        """
        self._cell.deliver(Envelope(message), may_wait=False)

    @enable_ki_protection
    async def send(self, message: object) -> None:
        """Put `message` into the inbox, waiting for room where the actor's overflow policy is to wait.

        Always a checkpoint. Cancelled, it has sent nothing.

        Raises:
            InboxFull: there is no room, and the actor's overflow policy is to reject.
            ActorStopped: the actor has ended, or ended while this waited.
            UsageError: the actor itself waits here for room that only its own task could make.
        """
        await checkpoint_if_cancelled()
        cell = self._cell
        envelope = Envelope(message, cell.abandoned)
        if cell.deliver(envelope, may_wait=True) == "waiting":
            cell.refuse_own_wait(envelope)
            envelope.sender = current_task()
            await wait_task_rescheduled(envelope.abandon)
        else:
            await cancel_shielded_checkpoint()

    @overload
    async def ask(self, message: Message[R], timeout: float | None = None) -> R: ...
    @overload
    async def ask(self, message: object, timeout: float | None = None) -> object: ...
    # Protected: a KeyboardInterrupt between delivery and wait would leave an asker whom nobody may wake.
    @enable_ki_protection
    async def ask(self, message: object, timeout: float | None = None) -> object:
        """Send `message` and wait for the reply, at most `timeout` seconds where that is given.

        Ends exactly once: with the reply, an error, the timeout or cancellation; a reply that comes
        later reaches nobody. Cancelled or timed out, the message may be handled all the same, unless
        the actor has `ActorOptions.cancel_abandoned` set, or it still waited for room in the inbox.

        Raises:
            AskTimeout: no reply came in time.
            ActorCrashed: handling the message crashed the actor each time it was delivered.
            InboxFull: there is no room, and the actor's overflow policy is to reject or to drop.
            ActorStopped: the actor has ended, or ended before it handled the message.
            UsageError: the actor asks itself where nothing but its own task could answer.
        """
        if timeout is not None:
            return await self._ask_within(timeout, message)
        await checkpoint_if_cancelled()
        cell = self._cell
        envelope = Envelope(message, cell.abandoned)
        cell.deliver(envelope, may_wait=True)
        cell.refuse_own_wait(envelope)
        if envelope.error is not None:  # a fault plan pushed it out of the inbox again
            raise envelope.error
        envelope.asker = current_task()
        return await wait_task_rescheduled(envelope.abandon)

    async def _ask_within(self, timeout: float, message: object) -> object:
        if not timeout >= 0:
            raise BadCall(f"timeout is {timeout!r}; it must be a number of seconds, 0 or more, or None")
        with trio.move_on_after(timeout):
            return await self.ask(message)
        raise AskTimeout(self.path, timeout)

    def request_stop(self, *, drain: bool = False, grace: float | None = None) -> None:
        """Ask the actor to stop and go on; see `stop`. An actor that stops itself uses this."""
        check_grace(grace)
        self._cell.request_stop(drain=drain, grace=grace)

    async def stop(self, *, drain: bool = False, grace: float | None = None) -> Terminated:
        """Stop the actor for good and wait until it has ended; it is not restarted.

        From now on it accepts nothing. Handlers that run may finish; after `grace` seconds (default:
        the actor's own) they are cancelled. Messages that wait are given back as `ActorStopped`, or,
        with `drain`, handled first; for that, an actor that has not started yet is started, within the
        same time, and one that backs off is not. A second stop can only hasten the first. Cancelled,
        this stops waiting; the actor stops all the same. An actor that ignores even cancellation is
        reported and waited for no longer: then the result's `error` is an `ActorUnresponsive`.

        Raises:
            UsageError: the actor's own handler waits here, which would have to end first.
        """
        self._cell.refuse_own_tasks()
        self.request_stop(drain=drain, grace=grace)
        return await self.watch()

    async def watch(self) -> Terminated:
        """Wait until the actor has ended for good, or is down; at once when it already has.

        A restart is not an end. Cancellation leaves nothing behind.

        Raises:
            UsageError: the actor's own handler waits here, which would have to end first.
        """
        return await self._cell.watch()

    def snapshot(self) -> ActorSnapshot:
        """How the actor is right now: state, inbox, counters, last error."""
        return self._cell.snapshot()


def new_actor(cell: Cell) -> Actor:
    """The actor of a new incarnation; raises what its factory raises, and `TypeError` for no new actor."""
    actor: object = cell.factory()
    if not isinstance(actor, Actor):
        raise TypeError(f"the factory of actor {cell.path!r} made {actor!r}, which is no Actor")
    if hasattr(actor, "_cell"):
        raise TypeError(
            f"the factory of actor {cell.path!r} gave {actor!r} a second time; "
            "it must make a new actor for each incarnation"
        )
    actor._cell = cell  # noqa: SLF001 - two halves of one thing
    return actor
