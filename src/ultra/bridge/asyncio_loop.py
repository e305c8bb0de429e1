"""Asyncio loops as trio sees them: places where the coroutines of asyncio libraries run."""

from __future__ import annotations

import asyncio
import threading
import weakref
from contextlib import suppress
from types import coroutine
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import trio
from outcome import Error, Value, capture
from trio.lowlevel import (
    Abort,
    RunVar,
    add_instrument,
    checkpoint_if_cancelled,
    current_task,
    current_trio_token,
    enable_ki_protection,
    in_trio_run,
    reschedule,
    wait_task_rescheduled,
)

from ultra.bridge.call_queue import Mailbox
from ultra.errors import LoopUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator
    from contextvars import Context

    from outcome import Outcome
    from trio.lowlevel import RaiseCancelT, Task

__all__ = ["Alarm", "AsyncioLoop", "TrioMail"]

T = TypeVar("T")


class TrioMail(trio.abc.Instrument):
    """The mail of one trio run: what other threads send to it, and what it sends to them.

    What its tasks send is kept until all of them have had their turn. To wake another thread earlier
    would give it the interpreter's lock, and the tasks that still have something to send would have to
    wait for it, and then wake it again.
    """

    _current: Final = RunVar["TrioMail"]("mail")

    def __init__(self, inbox: Mailbox) -> None:
        self.inbox = inbox
        self._unsent: dict[Mailbox, None] = {}

    @classmethod
    def current(cls) -> TrioMail:
        """The mail of the current trio run."""
        try:
            return cls._current.get()
        except LookupError:
            return cls.begin(Mailbox(current_trio_token().run_sync_soon))

    @classmethod
    def begin(cls, inbox: Mailbox) -> TrioMail:
        """Use `inbox` as that of the current trio run, which has no mail so far."""
        mail = cls(inbox)
        cls._current.set(mail)
        add_instrument(mail)
        return mail

    def send(self, mailbox: Mailbox, function: Callable[..., object], *args: object) -> None:
        """Put ``function(*args)`` into `mailbox`, and flush it before trio waits, or looks, for I/O."""
        mailbox.put(function, *args)
        self._unsent[mailbox] = None

    def after_run(self) -> None:
        """There are no tasks any more."""
        self.before_io_wait(0)

    def before_io_wait(self, timeout: float) -> None:  # noqa: ARG002 - trio's signature
        """All tasks have had their turn."""
        if self._unsent:
            unsent, self._unsent = self._unsent, {}
            for mailbox in unsent:
                try:
                    mailbox.flush()
                except LoopUnavailable:
                    continue  # the loop was closed, and its calls with it


class AsyncioLoop:
    """One asyncio loop. Called from trio, it runs a coroutine there and waits for its end.

    There is one object for each loop, so that what several tasks send to it shares one wake-up. What the
    loop's own tasks send back is kept until the callbacks that are ready with them have had their turn,
    for the reason that `TrioMail` gives.
    """

    _known: Final[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncioLoop]] = (
        weakref.WeakKeyDictionary()
    )
    _lock: Final = threading.Lock()

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)  # a registered client must not keep a closed loop in memory
        self.inbox = Mailbox(self._wake)
        self._unsent: dict[Mailbox, None] = {}
        self._will_flush = False
        self._began_tasks = False

    @classmethod
    def running(cls) -> AsyncioLoop:
        """The loop that runs in this thread. Raises `RuntimeError` when there is none."""
        loop = asyncio.get_running_loop()
        with cls._lock:
            known = cls._known.get(loop)
            if known is None:
                known = cls._known[loop] = cls(loop)
            return known

    @property
    def is_running(self) -> bool:
        """Whether the loop runs in some thread right now."""
        loop = self._loop()
        return loop is not None and loop.is_running()

    def post(self, function: Callable[..., object], *args: object) -> None:
        """Have ``function(*args)`` called by the loop, soon and in order; it must not raise.

        Raises:
            LoopUnavailable: the loop was closed.
        """
        loop = self._loop()
        if loop is None or loop.is_closed():
            raise LoopUnavailable("the asyncio loop was closed")
        if in_trio_run():
            TrioMail.current().send(self.inbox, function, *args)
        else:
            self.inbox.put(function, *args)
            self.inbox.flush()

    async def __call__(
        self,
        call: Callable[[Callable[[str], None] | None], Coroutine[Any, Any, T]],
        on_text: Callable[[str], None] | None,
        context: Context,
    ) -> T:
        """From trio: await ``call(emit)`` in a task of the loop, with a copy of `context`.

        What the coroutine hands to ``emit`` reaches `on_text` in this thread, in order, and before this
        returns. Cancelled, this cancels the coroutine and waits for its end, whatever that takes; what
        it emits meanwhile is dropped.

        Raises:
            LoopUnavailable: the loop does not run, or something else cancelled the coroutine.
            Exception: what the coroutine raised.
        """
        return await _Call(self, call, on_text, context).outcome()

    def _wake(self, deliver: Callable[[], None]) -> None:
        loop = self._loop()
        try:
            if loop is not None:
                loop.call_soon_threadsafe(self._take, deliver)
        except RuntimeError as error:
            raise LoopUnavailable("the asyncio loop was closed") from error

    # --- in the loop's thread ------------------------------------------------------------------------

    def begin(self, coroutine: Coroutine[Any, Any, None], context: Context) -> asyncio.Task[None]:
        """Make a task of `coroutine`, with `context` as its context variables."""
        self._began_tasks = True
        return asyncio.get_running_loop().create_task(coroutine, context=context)

    def send(self, mailbox: Mailbox, function: Callable[..., object], *args: object) -> None:
        """Put ``function(*args)`` into `mailbox`, and flush it soon."""
        mailbox.put(function, *args)
        self._unsent[mailbox] = None
        self._flush_soon()

    def _take(self, deliver: Callable[[], None]) -> None:
        deliver()
        if self._began_tasks:
            self._began_tasks = False
            self._flush_soon()  # right after the first steps of these tasks, which may be their last

    def _flush_soon(self) -> None:
        if not self._will_flush:
            self._will_flush = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._will_flush = False
        while self._unsent:  # one by one: what an interrupt leaves here is sent with the next
            mailbox = next(iter(self._unsent))
            _flush_home(mailbox)
            self._unsent.pop(mailbox, None)


class _Call(Generic[T]):
    """One coroutine on an asyncio loop, and the trio task that waits for it."""

    def __init__(
        self,
        loop: AsyncioLoop,
        call: Callable[[Callable[[str], None] | None], Coroutine[Any, Any, T]],
        on_text: Callable[[str], None] | None,
        context: Context,
    ) -> None:
        self._loop = loop
        self._call = call
        self._on_text = on_text
        self._context = context.copy()  # two threads cannot be in the same one at once
        self._mail = TrioMail.current()
        self._task: asyncio.Task[None] | None = None
        self._waiter: Task | None = None
        self._raise_cancel: RaiseCancelT | None = None
        self._failure: BaseException | None = None

    # --- in trio's thread ----------------------------------------------------------------------------

    @enable_ki_protection
    async def outcome(self) -> T:
        await checkpoint_if_cancelled()
        if not self._loop.is_running:
            raise LoopUnavailable("the asyncio loop does not run")
        self._mail.send(self._loop.inbox, self._begin)
        self._waiter = current_task()
        result: T = await wait_task_rescheduled(self._abort)
        return result

    def _abort(self, raise_cancel: RaiseCancelT) -> Abort:
        self._raise_cancel = raise_cancel
        self._on_text = None
        if self._loop.is_running:
            self._loop.post(self._cancel)
            return Abort.FAILED
        self._waiter = None  # the loop has ended in the middle of the call, which now never will
        return Abort.SUCCEEDED

    def _hear(self, text: str) -> None:
        if self._on_text is None:
            return
        try:
            self._on_text(text)
        except BaseException as error:  # noqa: BLE001 - raised where the call is awaited
            self._on_text = None
            self._failure = error
            self._loop.post(self._cancel)

    def _settle(self, outcome: Outcome[T] | None) -> None:
        """Let the waiting task go on; without an outcome, the coroutine was cancelled."""
        waiter, self._waiter = self._waiter, None
        if waiter is None:
            return
        if self._failure is not None:
            outcome = Error(self._failure)
        elif outcome is None and self._raise_cancel is not None:
            outcome = capture(self._raise_cancel)
        elif outcome is None:
            outcome = Error(LoopUnavailable("the coroutine was cancelled on its asyncio loop"))
        reschedule(waiter, outcome)

    # --- in the asyncio loop's thread ----------------------------------------------------------------

    def _begin(self) -> None:
        live = self._live()
        live.send(None)  # into its `try`, so that a task cancelled before its first step reports, too
        self._task = self._loop.begin(live, self._context)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _live(self) -> None:
        """The task: it reports its end itself, since a done callback would be one turn of the loop later."""
        try:
            await _pause()
            result = await self._call(self._emit if self._on_text is not None else None)
        except Exception as error:  # noqa: BLE001 - raised where the call is awaited
            self._report(Error(error))
        except GeneratorExit:
            raise  # thrown away with its loop, which does not run any more
        except BaseException as error:
            self._report(None)
            if not isinstance(error, asyncio.CancelledError):
                # KeyboardInterrupt and its like end the loop, by asyncio's own doing: the call broke off.
                _mark_as_seen(asyncio.current_task())
            raise
        else:
            self._report(Value(result))

    def _emit(self, text: str) -> None:
        self._mail.inbox.put(self._hear, text)
        _flush_home(self._mail.inbox)  # at once, for the client may go on computing

    def _report(self, outcome: Outcome[T] | None) -> None:
        self._task = None  # or an error would refer to itself: traceback, frame, task, error
        self._loop.send(self._mail.inbox, self._settle, outcome)


@coroutine
def _pause() -> Generator[None, None, None]:
    """Await this to be resumed by the next `send`, or by the first step of the task that is made then."""
    yield


def _mark_as_seen(task: asyncio.Task[Any] | None) -> None:
    """Keep asyncio from logging that nobody retrieved the exception with which `task` is about to end."""
    if task is not None:
        task.add_done_callback(lambda task: task.exception())


def _flush_home(mailbox: Mailbox) -> None:
    try:
        mailbox.flush()
    except (trio.RunFinishedError, LoopUnavailable):
        return  # nobody waits any more


class Alarm:
    """Wakes one task of the asyncio loop that it was made on, once, from any thread."""

    def __init__(self) -> None:
        self._loop = AsyncioLoop.running()
        self._future = asyncio.get_running_loop().create_future()

    def ring(self) -> None:
        """Let `wait` return. Does nothing where the loop was closed, since nobody waits there."""
        with suppress(LoopUnavailable):
            self._loop.post(self._end)

    async def wait(self) -> None:
        """Wait for `ring`."""
        await self._future

    def _end(self) -> None:
        if not self._future.done():
            self._future.set_result(None)
