"""Asyncio loops as trio sees them: places where the coroutines of asyncio libraries run."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from contextlib import suppress
from types import coroutine
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

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
    reschedule,
    spawn_system_task,
    wait_task_rescheduled,
)

from ultra._support.async_library import in_trio
from ultra.bridge.call_queue import CallQueue
from ultra.errors import LoopUnavailable, title_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator
    from contextvars import Context

    from outcome import Outcome
    from trio.lowlevel import RaiseCancelT, Task

__all__ = ["AsyncioLoop", "ThreadsafeEvent", "TrioQueues"]

T = TypeVar("T")

LOOP_CHECK_INTERVAL: Final = 0.25
"""Seconds between two looks at whether the loops of the calls under way still run."""


class TrioQueues(trio.abc.Instrument):
    """The call queue of one trio run, and the queues to which its tasks send.

    What the tasks send is kept until all tasks that are ready have had their turn. If another thread were
    woken earlier, it would take the interpreter's lock; the tasks that still have something to send would
    have to wait for the lock, and then wake that thread again.

    Attributes:
        own: what other threads send to this run.
    """

    _current: Final = RunVar["TrioQueues"]("ultra_queues")

    def __init__(self, own: CallQueue) -> None:
        self.own = own
        self._unsent: dict[CallQueue, None] = {}
        self.calls: dict[_LoopCall[Any], None] = {}
        """The calls to asyncio loops for which tasks of this run wait."""
        self._watching = False

    @classmethod
    def current(cls) -> TrioQueues:
        """Return the queues of the current trio run."""
        try:
            return cls._current.get()
        except LookupError:
            return cls.install(CallQueue(current_trio_token().run_sync_soon))

    @classmethod
    def install(cls, own: CallQueue) -> TrioQueues:
        """Make `own` the call queue of the current trio run, which has none so far."""
        queues = cls(own)
        cls._current.set(queues)
        add_instrument(queues)
        return queues

    def send(self, queue: CallQueue, function: Callable[..., object], *args: object) -> None:
        """Put ``function(*args)`` into `queue`, and flush it before trio waits for I/O."""
        queue.put(function, *args)
        self._unsent[queue] = None

    def watch(self, call: _LoopCall[Any]) -> None:
        """Have the call end if its loop stops before it has ended: nothing else would tell of that."""
        self.calls[call] = None
        if not self._watching:
            self._watching = True
            spawn_system_task(self._watch)

    async def _watch(self) -> None:
        orphaned: set[_LoopCall[Any]] = set()
        try:
            while self.calls:
                await trio.sleep(LOOP_CHECK_INTERVAL)
                seen = {call for call in self.calls if call.is_orphaned}
                for call in seen & orphaned:  # twice in a row: a loop may stop and go on at once
                    call.loop_has_ended()
                orphaned = seen
        finally:
            self._watching = False

    def after_run(self) -> None:
        """Flush, since there are no tasks any more."""
        self.before_io_wait(0)

    def before_io_wait(self, timeout: float) -> None:  # noqa: ARG002 - trio's signature
        """Flush, since all tasks have had their turn."""
        if self._unsent:
            unsent, self._unsent = self._unsent, {}
            for queue in unsent:
                try:
                    queue.flush()
                except LoopUnavailable:
                    continue  # the loop was closed, and its calls with it


class AsyncioLoop:
    """One asyncio loop. Called from trio, it runs a coroutine there and waits for its end.

    There is one object for each loop, so that what several tasks send to it shares one wake-up. What the
    loop's own tasks send is kept until the callbacks that are ready have had their turn, for the reason that
    `TrioQueues` gives::

        loop = AsyncioLoop.running()  # on asyncio
        answer = await loop(call, on_text, context)  # on trio, in another thread
    """

    # What a forked child inherits belongs to its parent: see `is_running`.
    _known: Final[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncioLoop]] = (
        weakref.WeakKeyDictionary()
    )
    _lock: Final = threading.Lock()

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)  # a registered client must not keep a closed loop in memory
        self._process = os.getpid()
        self.queue = CallQueue(self._wake)
        self._unsent: dict[CallQueue, None] = {}
        self._will_flush = False
        self._has_new_tasks = False

    @classmethod
    def running(cls) -> AsyncioLoop:
        """Return the loop that runs in this thread; raise `RuntimeError` if there is none."""
        loop = asyncio.get_running_loop()
        with cls._lock:
            known = cls._known.get(loop)
            if known is None:
                known = cls._known[loop] = cls(loop)
            return known

    @property
    def is_running(self) -> bool:
        """Whether the loop runs now, in any thread of this process."""
        loop = self._loop()
        return loop is not None and self._process == os.getpid() and loop.is_running()

    def post(self, function: Callable[..., object], *args: object) -> None:
        """Have ``function(*args)`` called by the loop, soon and in order; it must not raise. For any thread.

        Raises:
            LoopUnavailable: the loop was closed.
        """
        loop = self._loop()
        if loop is None or loop.is_closed() or self._process != os.getpid():
            raise LoopUnavailable("the asyncio loop was closed")
        if in_trio():
            TrioQueues.current().send(self.queue, function, *args)
        else:
            self.queue.put(function, *args)
            self.queue.flush()

    async def __call__(
        self,
        call: Callable[[Callable[[str], None] | None], Coroutine[Any, Any, T]],
        on_text: Callable[[str], None] | None,
        context: Context,
    ) -> T:
        """From trio: await ``call(emit)`` in a task of the loop, with a copy of `context`.

        What the coroutine hands to ``emit`` reaches `on_text` in this thread, in order, and before this
        returns. Cancelled, this cancels the coroutine and waits for its end, however long that takes; what
        the coroutine emits meanwhile is dropped.

        Raises:
            LoopUnavailable: the loop does not run, or something else cancelled the coroutine.
            Exception: what the coroutine raised.
        """
        return await _LoopCall(self, call, on_text, context).result()

    def _wake(self, deliver: Callable[[], None]) -> None:
        loop = self._loop()
        try:
            if loop is not None:
                loop.call_soon_threadsafe(self._deliver, deliver)
        except RuntimeError as error:
            raise LoopUnavailable("the asyncio loop was closed") from error

    # --- in the loop's thread ------------------------------------------------------------------------

    def create_task(self, coroutine: Coroutine[Any, Any, None], context: Context) -> asyncio.Task[None]:
        """Make a task of `coroutine`, with `context` as its context variables."""
        self._has_new_tasks = True
        loop = asyncio.get_running_loop()
        factory = loop.get_task_factory()
        if factory is None:
            return loop.create_task(coroutine, context=context)
        # Called here: those of the classic signature take nothing but these two, and uvloop gives more.
        task: Any = context.run(factory, loop, coroutine)
        if not (callable(getattr(task, "done", None)) and callable(getattr(task, "cancel", None))):
            raise TypeError(f"it returned {type(task).__name__}, which is no task")
        return cast("asyncio.Task[None]", task)

    def send(self, queue: CallQueue, function: Callable[..., object], *args: object) -> None:
        """Put ``function(*args)`` into `queue`, and flush it soon."""
        queue.put(function, *args)
        self._unsent[queue] = None
        self._flush_soon()

    def _deliver(self, deliver: Callable[[], None]) -> None:
        deliver()
        if self._has_new_tasks:
            self._has_new_tasks = False
            self._flush_soon()  # right after the first steps of these tasks, which may be their last

    def _flush_soon(self) -> None:
        if not self._will_flush:
            self._will_flush = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._will_flush = False
        while self._unsent:  # one by one: what an interrupt leaves here is sent with the next
            queue = next(iter(self._unsent))
            _flush_to_trio(queue)
            self._unsent.pop(queue, None)


class _LoopCall(Generic[T]):
    """One coroutine on an asyncio loop, and the trio task that waits for its result."""

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
        self._queues = TrioQueues.current()
        self._task: asyncio.Task[None] | None = None
        self._waiter: Task | None = None
        self._raise_cancel: RaiseCancelT | None = None
        self._failure: BaseException | None = None

    # --- in trio's thread ----------------------------------------------------------------------------

    @enable_ki_protection
    async def result(self) -> T:
        await checkpoint_if_cancelled()
        if not self._loop.is_running:
            raise LoopUnavailable("the asyncio loop does not run")
        self._waiter = current_task()  # first: the loop may take at once what is sent, and looks at this
        self._queues.send(self._loop.queue, self._start)
        self._queues.watch(self)
        result: T = await wait_task_rescheduled(self._abort)
        return result

    def _abort(self, raise_cancel: RaiseCancelT) -> Abort:
        self._raise_cancel = raise_cancel
        self._on_text = None
        if self._loop.is_running:
            try:
                self._loop.post(self._cancel)
            except LoopUnavailable:
                pass  # it was closed a moment ago
            else:
                return Abort.FAILED
        self._waiter = None  # the loop has ended in the middle of the call, which will never end now
        self._queues.calls.pop(self, None)
        self._leave()
        return Abort.SUCCEEDED

    def loop_has_ended(self) -> None:
        """Go on without the coroutine: its loop has stopped and nobody runs it any more."""
        self._on_text = None
        self._leave()
        if self._raise_cancel is not None:
            self._finish(None)
        else:
            self._finish(Error(LoopUnavailable("the asyncio loop ended before the coroutine did")))

    def _leave(self) -> None:
        """Have the coroutine cancelled if its loop is run again after all: nobody waits for it."""
        with suppress(LoopUnavailable):
            self._loop.post(self._cancel)

    @property
    def is_orphaned(self) -> bool:
        """Whether the loop does not run."""
        return not self._loop.is_running

    def _take_text(self, text: str) -> None:
        if self._on_text is None:
            return
        try:
            self._on_text(text)
        except BaseException as error:  # noqa: BLE001 - raised where the call is awaited
            self._on_text = None
            self._failure = error
            with suppress(LoopUnavailable):  # it was closed a moment ago, and the call with it
                self._loop.post(self._cancel)

    def _finish(self, outcome: Outcome[T] | None) -> None:
        """Let the waiting task go on; no outcome: the coroutine was cancelled."""
        self._queues.calls.pop(self, None)
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
        del outcome  # what is raised here to be caught has a traceback that refers to this frame

    # --- in the asyncio loop's thread ----------------------------------------------------------------

    def _start(self) -> None:
        if self._waiter is None:
            return  # the loop stood still, and nobody waits any more
        coroutine = self._run()
        coroutine.send(None)  # into its `try`, so that a task that is cancelled before its first step reports
        try:
            task = self._loop.create_task(coroutine, self._context)
        except BaseException as error:
            coroutine.close()
            unavailable = LoopUnavailable(f"the task factory of the asyncio loop failed: {title_of(error)}")
            unavailable.__cause__ = error
            self._report(Error(unavailable))
            if not isinstance(error, Exception):
                raise
        else:
            self._task = None if task.done() else task  # an eager one has run to its first wait already

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        """Run as the task. It reports its end itself: a done callback would be one turn of the loop later."""
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
                # asyncio itself lets KeyboardInterrupt and SystemExit end the loop: the call broke off.
                _mark_as_retrieved(asyncio.current_task())
            raise
        else:
            self._report(Value(result))

    def _emit(self, text: str) -> None:
        self._queues.own.put(self._take_text, text)
        _flush_to_trio(self._queues.own)  # at once, for the client may go on computing

    def _report(self, outcome: Outcome[T] | None) -> None:
        self._task = None  # or an error would refer to itself: traceback, frame, task, error
        if asyncio._get_running_loop() is not None:  # noqa: SLF001 - else thrown away with its loop
            self._loop.send(self._queues.own, self._finish, outcome)


@coroutine
def _pause() -> Generator[None, None, None]:
    """Stop the coroutine that awaits this, until the next `send`, or the first step of its task."""
    yield


def _mark_as_retrieved(task: asyncio.Task[Any] | None) -> None:
    """Keep asyncio from logging that nobody retrieved the exception with which `task` is about to end."""
    if task is not None:
        task.add_done_callback(lambda task: task.exception())


def _flush_to_trio(queue: CallQueue) -> None:
    try:
        queue.flush()
    except (trio.RunFinishedError, LoopUnavailable):
        return  # nobody waits any more


class ThreadsafeEvent:
    """An event for one task of the asyncio loop on which it is made; any thread may set it, once or more."""

    def __init__(self) -> None:
        self._loop = AsyncioLoop.running()
        self._future = asyncio.get_running_loop().create_future()

    def set(self) -> None:
        """Let `wait` return. Does nothing if the loop was closed, since nobody waits there."""
        with suppress(LoopUnavailable):
            self._loop.post(self._set_result)

    async def wait(self) -> None:
        """Wait for `set`."""
        await self._future

    def _set_result(self) -> None:
        if not self._future.done():
            self._future.set_result(None)
