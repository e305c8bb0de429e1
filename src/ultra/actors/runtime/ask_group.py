"""Scatter and gather: ask many actors, and take the results in the order in which they come."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeVar

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

__all__ = ["AskGroup", "AskResult"]

K = TypeVar("K")
R = TypeVar("R")

_NO_RESULTS: Final[deque[Any]] = deque()
"""Of groups that have got none yet. Even an empty deque takes 760 bytes, and many groups wait at once."""


class AskResult(Struct, Generic[K, R], frozen=True):
    """What became of one ask of an `AskGroup`: `error`, or where that is None, `value`.

    `key` is the key that was given to `AskGroup.ask`. This is no message and never leaves the process: it is
    what `ActorRef.ask` returns or raises. So `error` is the exception itself, and `key` may be any object.
    """

    key: K
    value: R | None = None
    error: Exception | None = None


class _GroupEnvelope(Envelope, Generic[K, R], eq=False, kw_only=True):
    """An envelope whose reply goes to a group and not to a waiting task."""

    group: AskGroup[K, R]
    key: K
    settled: bool = False

    def succeed(self, reply: R) -> None:  # type: ignore[override] # its message says the type
        self.settle(AskResult(self.key, value=reply))

    def fail(self, error: Exception) -> None:
        self.settle(AskResult(self.key, error=error))

    def settle(self, result: AskResult[K, R]) -> None:
        if not (self.settled or self.abandoned):
            self.settled = True
            self.group._settle(self, result)  # noqa: SLF001 - an envelope is a part of its group


class AskGroup(Generic[K, R]):
    """Ask many actors at once, without a task for each.

        with AskGroup[str, int]() as asks:
            for name, ref in counters.items():
                asks.ask(ref, Total(), name)
            while len(asks):
                result = await asks.next()
                print(result.key, result.value if result.error is None else result.error)

    The messages are put into the inboxes in the order of the calls to `ask`. Leaving the block abandons
    every ask that has no result yet, as cancelling an ask does. For use by one task. `on_result` is called
    with each result at the moment it comes; it must return at once and not raise.
    """

    def __init__(self, on_result: Callable[[AskResult[K, R]], None] | None = None) -> None:
        self._on_result = on_result
        self._open: dict[_GroupEnvelope[K, R], None] = {}
        self._results: deque[AskResult[K, R]] = _NO_RESULTS
        self._waiting: Task | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        """Return how many results `next` has still to give."""
        return len(self._open) + len(self._results)

    @property
    def unanswered(self) -> tuple[K, ...]:
        """The keys of the asks that have no result yet, in the order of the calls to `ask`."""
        return tuple(envelope.key for envelope in self._open)

    def ask(self, ref: ActorRef, message: Message[R], key: K) -> None:
        """Send `message`; its result will come from `next`. Never blocks.

        What `ActorRef.ask` would raise is the `error` of the result: a full inbox, if the actor does not
        make senders wait for room; an actor that has ended; an actor that asks itself where nothing but its
        own task could answer.
        """
        cell = ref._cell  # noqa: SLF001 - a part of the same runtime
        envelope = _GroupEnvelope(message, cell, group=self, key=key)
        self._open[envelope] = None
        try:
            cell.deliver(envelope, may_wait=True)
            cell.refuse_own_wait(envelope)
        except UltraError as error:
            envelope.fail(error)

    async def next(self) -> AskResult[K, R]:
        """Wait for the next result and return it. Always a checkpoint; cancelled, it has taken none.

        Raises:
            IndexError: there is no ask whose result was not taken.
        """
        if not len(self):
            raise IndexError("every ask of this group has its result, and all results were taken")
        await self.arrival()
        while not self._results:  # it was woken without one
            await self.arrival()
        return self._results.popleft()

    # Protected: a KeyboardInterrupt between the two lines that park would leave a task that nobody may wake.
    @enable_ki_protection
    async def arrival(self) -> None:
        """Wait until a result has come that was not taken, or until `wake`. Always a checkpoint."""
        if self._results:
            await checkpoint()
            return
        self._waiting = current_task()
        await wait_task_rescheduled(self._stop_waiting)

    def wake(self) -> None:
        """Let the task go on that waits in `arrival`, if one does."""
        if self._waiting is not None:
            task, self._waiting = self._waiting, None
            reschedule(task)

    def arrived(self) -> Iterator[AskResult[K, R]]:
        """Take the results that have come already, without waiting; useful after `next` was cancelled."""
        while self._results:
            yield self._results.popleft()

    def close(self) -> None:
        """Abandon every ask that has no result yet; a reply that comes later reaches nobody."""
        open_envelopes, self._open = self._open, {}
        for envelope in open_envelopes:
            envelope.abandon(None)

    def _settle(self, envelope: _GroupEnvelope[K, R], result: AskResult[K, R]) -> None:
        self._open.pop(envelope, None)
        if self._results is _NO_RESULTS:
            self._results = deque()
        self._results.append(result)
        if self._on_result is not None:
            self._on_result(result)
        self.wake()

    def _stop_waiting(self, _raise_cancel: object) -> Abort:
        self._waiting = None
        return Abort.SUCCEEDED
