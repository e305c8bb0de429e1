"""The actor that users write, and the reference through which all others talk to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, TypeVar, overload

import trio
from msgspec import Struct
from trio.lowlevel import (
    cancel_shielded_checkpoint,
    checkpoint_if_cancelled,
    current_task,
    enable_ki_protection,
    wait_task_rescheduled,
)

from ultra._support.checks import check_choice, check_count, check_seconds
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
    """How an actor takes its messages.

    Attributes:
        concurrency: how many handlers run at once.
        capacity: how many user messages may be accepted and not finished, those in flight included.
        overflow: what happens to a user message that finds the inbox full.
        max_deliveries: how often a message is handed to `receive` in all, if handling it crashes the actor.
        cancel_abandoned: whether a handler is cancelled, or a queued message dropped, when its asker waits
            no longer.
        start_timeout: how long `on_start` may take [s].
        stop_timeout: how long `on_stop` may take [s].
        grace: how long handlers may go on after a stop before they are cancelled [s].
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
            check_count(name, getattr(self, name))
        for name in ("start_timeout", "stop_timeout", "grace"):
            check_seconds(name, getattr(self, name), endless=True)
        check_choice("overflow", self.overflow, Overflow)
        # The inbox counts the messages in flight too, and what is dropped must not be in flight.
        least = self.concurrency + (self.overflow == "drop_oldest")
        if self.capacity < least:
            raise BadCall(
                f"capacity is {self.capacity} with a concurrency of {self.concurrency} and overflow "
                f"{self.overflow!r}; the capacity must be at least {least}, since it counts the "
                "messages in flight too"
            )


class Actor:
    """Base class of actors: override `receive`, and where needed `on_start` and `on_stop`.

        class Counter(Actor):
            def __init__(self) -> None:
                self.total = 0

            async def receive(self, message: object) -> object:
                self.total += message.amount
                return self.total

    The runtime makes a new instance for each incarnation, so keep state that must outlive a crash elsewhere.
    The inbox and `ref` belong to the actor and not to the instance: they stay the same over restarts.
    """

    options: ClassVar[ActorOptions] = ActorOptions()

    _cell: Cell

    @property
    def ref(self) -> ActorRef:
        """The reference to this actor; usable from `on_start` on."""
        return self._cell.ref

    def finish(self) -> None:
        """End this incarnation normally once the messages in flight are handled.

        A permanent actor is then restarted; a transient or temporary one has ended. Does nothing in an
        instance of an earlier incarnation.
        """
        self._cell.finish(self)

    async def on_start(self) -> None:
        """Get ready for messages; called before the first one.

        An exception that leaves this method is a failed start, which counts as a crash. So is a start that
        takes longer than `ActorOptions.start_timeout`.
        """

    async def receive(self, message: object) -> object:
        """Handle one message and return the reply.

        Return a `Failure` to raise an error in the asker. An exception that leaves this method crashes
        the actor: its supervisor decides what happens then.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how it receives messages")

    def on_abandon(self, handler: Task) -> None:
        """Decide what becomes of a handler whose asker waits no longer; called if `cancel_abandoned` is set.

        Override this where others than the asker may want the work, too: then the runtime does not cancel
        the handler, which runs in the task `handler`. This must return at once and not raise.
        """

    async def on_stop(self) -> None:
        """Clean up after the last message, and after a crash; shielded from cancellation.

        It is cancelled after `ActorOptions.stop_timeout` seconds.
        """


class ActorRef:
    """The address of an actor, which stays valid over restarts. Two refs to one actor are equal.

    counter.tell(Add(1))                           # put it into the inbox and go on
    await counter.send(Add(1))                     # the same, and wait for room if the inbox is full
    total = await counter.ask(Add(1), timeout=5)   # wait for the reply
    """

    __slots__ = ("_cell",)

    def __init__(self, cell: Cell) -> None:
        self._cell = cell

    @property
    def path(self) -> str:
        """The names of the supervisors above the actor and its own name, such as ``/workers/echo``."""
        return self._cell.path

    def __repr__(self) -> str:
        return f"<ActorRef {self.path} {self._cell.state.value}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ActorRef) and other._cell is self._cell

    def __hash__(self) -> int:
        return hash(id(self._cell))

    def tell(self, message: object) -> None:
        """Put `message` into the inbox and go on; never blocks.

        Only for tasks of the same trio run; from another thread, call it by `trio.from_thread.run_sync`.

        Raises:
            UsageError: this is not the trio run of the actor.
            InboxFull: there is no room, and the actor does not drop its oldest message.
            ActorStopped: the actor has ended (`ActorDown`: it crashed too often).
        """
        self._cell.deliver(Envelope(message), may_wait=False)

    @enable_ki_protection
    async def send(self, message: object) -> None:
        """Put `message` into the inbox; wait for room, if the actor's overflow policy is to wait.

        Always a checkpoint. Cancelled, it has sent nothing.

        Raises:
            InboxFull: there is no room, and the actor's overflow policy is to reject.
            ActorStopped: the actor has ended, or ended while this waited.
            UsageError: the actor sends to itself, and only the task that waits could make room.
        """
        await checkpoint_if_cancelled()
        cell = self._cell
        envelope = Envelope(message, cell)
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
    # Protected: a KeyboardInterrupt between delivery and wait would leave an asker that nobody may wake.
    @enable_ki_protection
    async def ask(self, message: object, timeout: float | None = None) -> object:
        """Send `message`, wait for the reply, at most `timeout` seconds if that is given, and return it.

        Ends exactly once: with the reply, an error, the timeout or cancellation; a reply that comes
        later reaches nobody. After a cancellation or timeout the message may still be handled, unless the
        actor has `ActorOptions.cancel_abandoned` set, or the message still waited for room in the inbox.

        Raises:
            AskTimeout: no reply came in time.
            ActorCrashed: handling the message crashed the actor each time it was delivered.
            InboxFull: there is no room, and the actor's overflow policy is to reject or to drop.
            ActorStopped: the actor has ended, or ended before it handled the message.
            UsageError: the actor asks itself, and only the task that waits could answer; or this is called
                in an `on_start` for which the actor's own start waits; or in another trio run.
        """
        if timeout is not None:
            return await self._ask_within(timeout, message)
        await checkpoint_if_cancelled()
        cell = self._cell
        envelope = Envelope(message, cell)
        cell.deliver(envelope, may_wait=True)
        cell.refuse_own_wait(envelope)
        if envelope.error is not None:  # a fault plan pushed it out of the inbox again
            raise envelope.error
        envelope.asker = current_task()
        return await wait_task_rescheduled(envelope.abandon)

    async def _ask_within(self, timeout: float, message: object) -> object:
        check_seconds("timeout", timeout, endless=True, optional=True)
        with trio.move_on_after(timeout):
            return await self.ask(message)
        raise AskTimeout(self.path, timeout)

    def request_stop(self, *, drain: bool = False, grace: float | None = None) -> None:
        """Ask the actor to stop, and go on; see `stop`. An actor stops itself in this way."""
        check_seconds("grace", grace, optional=True)
        self._cell.request_stop(drain=drain, grace=grace)

    async def stop(self, *, drain: bool = False, grace: float | None = None) -> Terminated:
        """Stop the actor for good, wait until it has ended, and return how; it is not restarted.

        From now on it accepts no message. Handlers that run may finish; after `grace` seconds (default:
        `ActorOptions.grace`) they are cancelled. Messages that wait fail with `ActorStopped`; with `drain`
        they are handled first, within the same time. To be drained, an actor that has not started yet is
        started; one that is backing off is not. A second stop can only make the end come sooner.
        Cancelled, this stops waiting, and the actor stops nevertheless. An actor that ignores cancellation
        is reported and waited for no longer: then the result's `error` is an `ActorUnresponsive`.

        Raises:
            UsageError: the actor's own handler waits here, and would have to end first.
        """
        self._cell.refuse_own_tasks()
        self.request_stop(drain=drain, grace=grace)
        return await self.watch()

    async def watch(self) -> Terminated:
        """Wait until the actor has ended for good, or is down, and return how; at once if it already has.

        A restart is not an end. Cancellation leaves nothing behind.

        Raises:
            UsageError: the actor's own handler waits here, and would have to end first.
        """
        return await self._cell.watch()

    def snapshot(self) -> ActorSnapshot:
        """Return the actor's state, inbox, counters and last error right now."""
        return self._cell.snapshot()


def new_actor(cell: Cell) -> Actor:
    """Make the actor of a new incarnation; raises what the factory raises, `TypeError` for no new actor."""
    actor: object = cell.factory()
    if not isinstance(actor, Actor):
        made = type(actor).__qualname__
        raise TypeError(
            f"the factory of actor {cell.path!r} made an object of type {made}, which is no Actor"
        )
    if hasattr(actor, "_cell"):
        raise TypeError(
            f"the factory of actor {cell.path!r} gave the same {type(actor).__qualname__} a second time; "
            "it must make a new actor for each incarnation"
        )
    actor._cell = cell  # noqa: SLF001 - the cell and its actor are parts of one class
    return actor
