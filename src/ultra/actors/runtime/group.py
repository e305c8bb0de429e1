"""Scatter and gather: ask many actors, and take the replies in the order in which they come."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from msgspec import Struct
from trio.lowlevel import (
    Abort,
    checkpoint,
    current_task,
    enable_ki_protection,
    reschedule,
    wait_task_rescheduled,
)

from ultra.actors.runtime.message import Envelope
from ultra.errors import UltraError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from trio.lowlevel import Task

    from ultra.actors.runtime.actor import ActorRef
    from ultra.actors.runtime.message import Message

__all__ = ["AskGroup", "Reply"]

K = TypeVar("K")
R = TypeVar("R")


class Reply(Struct, Generic[K, R], frozen=True):
    """What became of one ask: `error`, or where that is None, `value`. `key` is the asker's own."""

    key: K
    value: R | None = None
    error: Exception | None = None


class _GroupEnvelope(Envelope, Generic[K, R], eq=False, kw_only=True):
    """An envelope whose reply goes to a group instead of a parked task."""

    group: AskGroup[K, R]
    key: K
    settled: bool = False

    def succeed(self, reply: R) -> None:  # type: ignore[override]
        self.settle(Reply(self.key, value=reply))

    def fail(self, error: Exception) -> None:
        self.settle(Reply(self.key, error=error))

    def settle(self, reply: Reply[K, R]) -> None:
        if not (self.settled or self.abandoned):
            self.settled = True
            self.group._settle(self, reply)  # noqa: SLF001 - an envelope is a part of its group


class AskGroup(Generic[K, R]):
    """Asks many actors at once, without a task for each.

    The messages are in the inboxes in the order of the calls to `ask`. Leaving the block abandons what
    is not answered, as a cancelled ask does. For one task; the keys are the caller's own. `on_reply` is
    called with each reply at the moment it comes; it must return at once and not raise.
    """

    def __init__(self, on_reply: Callable[[Reply[K, R]], None] | None = None) -> None:
        self._on_reply = on_reply
        self._open: dict[_GroupEnvelope[K, R], None] = {}
        self._replies: deque[Reply[K, R]] = deque()
        self._waiting: Task | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        """Replies that `next` has still to give."""
        return len(self._open) + len(self._replies)

    @property
    def unanswered(self) -> tuple[K, ...]:
        """The keys whose reply has not come, in the order in which they were asked."""
        return tuple(envelope.key for envelope in self._open)

    def ask(self, ref: ActorRef, message: Message[R], key: K) -> None:
        """Send `message`; its reply will come from `next`. Never blocks.

        A full inbox makes the message wait for room, or fails it, as the actor declares; an actor that
        has ended fails it, and so does one that could handle it only in the task that asks. All of these
        are replies with an error.
        """
        cell = ref._cell  # noqa: SLF001 - a part of the same runtime
        envelope = _GroupEnvelope(message, cell.abandoned, group=self, key=key)
        self._open[envelope] = None
        try:
            cell.deliver(envelope, may_wait=True)
            cell.refuse_own_wait(envelope)
        except UltraError as error:
            envelope.fail(error)

    # Protected: a KeyboardInterrupt between the two lines that park would leave a task that nobody may wake.
    @enable_ki_protection
    async def next(self) -> Reply[K, R]:
        """Wait for the reply that comes next. Always a checkpoint; cancelled, it has taken none.

        Raises:
            IndexError: all replies were given already.
        """
        if not len(self):
            raise IndexError("every ask of this group was answered, and every reply taken")
        if self._replies:
            await checkpoint()
        else:
            self._waiting = current_task()
            await wait_task_rescheduled(self._stop_waiting)
        return self._replies.popleft()

    def arrived(self) -> Iterator[Reply[K, R]]:
        """Take the replies that have come already, without waiting: a wait that was cancelled left them."""
        while self._replies:
            yield self._replies.popleft()

    def close(self) -> None:
        """Abandon what is not answered; replies that come later reach nobody."""
        open_envelopes, self._open = self._open, {}
        for envelope in open_envelopes:
            envelope.abandon(None)

    def _settle(self, envelope: _GroupEnvelope[K, R], reply: Reply[K, R]) -> None:
        self._open.pop(envelope, None)
        self._replies.append(reply)
        if self._on_reply is not None:
            self._on_reply(reply)
        if self._waiting is not None:
            task, self._waiting = self._waiting, None
            reschedule(task)

    def _stop_waiting(self, _raise_cancel: object) -> Abort:
        self._waiting = None
        return Abort.SUCCEEDED
