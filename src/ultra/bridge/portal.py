"""A trio run in a thread of its own, for programs on asyncio.

What is passed in runs in trio's thread; what awaits it is a coroutine on an asyncio loop. Exceptions
cross over as they are, and context variables come along. Cancelling the coroutine cancels what runs in
trio, and the coroutine goes on, cancelled, when that has ended: nothing is left running behind it.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import trio
from outcome import Error, Value

from ultra.bridge.asyncio_loop import AsyncioLoop, TrioMail
from ultra.bridge.call_queue import Mailbox
from ultra.errors import LoopUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from types import TracebackType

    from outcome import Outcome

__all__ = ["SharedTrioThread", "TrioThread"]

T = TypeVar("T")


class TrioThread:
    """One thread with one trio run, from `start` to `stop`.

    The thread is a daemon, so that a program can end whose asyncio loop never got to `stop`.
    """

    def __init__(self, name: str = "trio") -> None:
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._mailbox = Mailbox(self._wake)
        self._token: trio.lowlevel.TrioToken | None = None
        self._nursery: trio.Nursery | None = None
        self.jobs: dict[_Job[Any], None] = {}
        self._lock = threading.Lock()
        self._ended = False
        self._on_end: Callable[[], object] | None = None

    def start(self) -> None:
        """Start the thread; what is passed to it before trio is ready waits until then."""
        self._thread.start()

    async def run(self, function: Callable[[], Awaitable[T]]) -> T:
        """Call the async function in a trio task, and wait for its end.

        It sees a copy of the caller's context variables. Cancelled, this cancels the task, waits for
        its end, and drops what it returns or raises.

        Raises:
            LoopUnavailable: the thread ended before the function did.
            BaseException: what the function raised.
        """
        job = _Job(self, function)
        try:
            job.submit()
            return cast("T", await job.future)
        finally:
            job.cancel()  # does nothing, unless this coroutine was thrown away
            del job  # or an error would refer to itself: traceback, frame, future, error

    def open(self, manager: AbstractAsyncContextManager[T]) -> AbstractAsyncContextManager[T]:
        """The trio context manager for use on asyncio: entered and left in one task of this thread.

        Where trio ends the block on its own, as a nursery does when a task in it fails, that is
        raised when the block is left.
        """
        return _Block(self, manager)

    async def stop(self) -> None:
        """Cancel what runs, and wait for the end of the thread, even if cancelled. To be called once."""
        loop = AsyncioLoop.running()
        ended = _Uninterrupted[None](lambda: None)
        with self._lock:
            if not self._ended:
                self._on_end = partial(loop.post, ended.set_result, None)
                with suppress(LoopUnavailable):  # it is just about to end by itself
                    self.post(self._cancel_all)
        if self._on_end is not None:
            await ended
        self._thread.join()  # it has nothing left to do

    def post(self, function: Callable[..., object], *args: object) -> None:
        """Have ``function(*args)`` called in the thread, soon and in order; it must not raise.

        Raises:
            LoopUnavailable: the thread has ended.
        """
        self._mailbox.put(function, *args)
        self._mailbox.flush()

    def _wake(self, deliver: Callable[[], None]) -> None:
        if self._token is None:
            return  # not ready; `_serve` will deliver
        try:
            self._token.run_sync_soon(deliver)
        except trio.RunFinishedError as error:
            raise LoopUnavailable("the trio thread has ended") from error

    # --- in the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            trio.run(self._serve)
        finally:
            with self._lock:
                self._ended = True
            for job in tuple(self.jobs):
                job.settle(Error(LoopUnavailable("the trio thread has ended")))
            if self._on_end is not None:
                with suppress(LoopUnavailable):
                    self._on_end()

    async def _serve(self) -> None:
        TrioMail.begin(self._mailbox)
        async with trio.open_nursery() as self._nursery:
            self._token = trio.lowlevel.current_trio_token()
            self._mailbox.deliver()
            await trio.sleep_forever()

    def spawn(self, function: Callable[[], Awaitable[object]]) -> None:
        """Start a task, with a copy of the current context variables; in the thread only."""
        if self._nursery is not None:
            self._nursery.start_soon(function)

    def _cancel_all(self) -> None:
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()


class _Uninterrupted(asyncio.Future[T]):
    """A future that a task waits for even when it is cancelled.

    `Task.cancel` asks the future that the task waits for first. This one passes the wish on and
    declines, whereupon the task is cancelled at the moment when the future is done.
    """

    def __init__(self, on_cancel: Callable[[], None]) -> None:
        super().__init__()
        self._on_cancel = on_cancel

    def cancel(self, msg: object = None) -> bool:  # noqa: ARG002 - asyncio's signature
        self._on_cancel()
        return False


class _Job(Generic[T]):
    """One async function in trio, and the asyncio future that stands for it."""

    def __init__(self, thread: TrioThread, function: Callable[[], Awaitable[T]]) -> None:
        self.future: _Uninterrupted[T | None] = _Uninterrupted(self.cancel)
        self._thread = thread
        self._function = function
        self._context = contextvars.copy_context()
        self._loop = AsyncioLoop.running()
        self._scope = trio.CancelScope()
        self._cancelled = False

    # --- on asyncio ----------------------------------------------------------------------------------

    def submit(self) -> None:
        self._thread.jobs[self] = None
        self._thread.post(self._begin)

    def cancel(self) -> None:
        if not (self._cancelled or self.future.done()):
            self._cancelled = True
            with suppress(LoopUnavailable):
                self._thread.post(self._scope.cancel)

    def _land(self, outcome: Outcome[T] | None) -> None:
        if self.future.done():
            return
        if outcome is None or self._cancelled:
            self.future.set_result(None)  # nobody sees it: the waiting task is cancelled now
        elif isinstance(outcome, Error):
            self.future.set_exception(outcome.error)
        else:
            self.future.set_result(outcome.unwrap())

    # --- in trio -------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._context.run(self._thread.spawn, self._live)

    async def _live(self) -> None:
        outcome: Outcome[T] | None = None
        try:
            with self._scope:
                outcome = Value(await self._function())
        except BaseException as error:
            if _has_cancelled(error):
                outcome = Error(LoopUnavailable("the trio thread was stopped"))
                raise
            outcome = Error(error)
        finally:
            self.settle(outcome)

    def settle(self, outcome: Outcome[T] | None) -> None:
        """Report the end, once; no outcome: cancelled, as asked for."""
        if self._thread.jobs.pop(self, self) is None:
            with suppress(LoopUnavailable):  # the loop was closed, so nobody waits there any more
                self._loop.post(self._land, outcome)


def _has_cancelled(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(trio.Cancelled) is not None
    return isinstance(error, trio.Cancelled)


class _Block(AbstractAsyncContextManager[T, bool]):
    """A trio context manager, entered and left from asyncio; both happen in one trio task."""

    def __init__(self, thread: TrioThread, manager: AbstractAsyncContextManager[T]) -> None:
        self._thread = thread
        self._manager = manager

    async def __aenter__(self) -> T:
        self._loop = AsyncioLoop.running()
        self._job = job = _Job(self._thread, self._live)
        self._entered = _Uninterrupted[None](job.cancel)
        job.future.add_done_callback(self._on_entered)
        job.submit()
        try:
            await self._entered
        except BaseException:
            job.cancel()
            with suppress(Exception):  # what went wrong meanwhile; this is cancelled all the same
                await job.future
            raise
        if job.future.done():
            job.future.result()
        return self._value

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        with suppress(LoopUnavailable):  # then the job has ended by that
            self._thread.post(self._leave, kind, error, trace)
        try:
            return bool(await self._job.future)
        except BaseException as raised:
            if raised is error:
                return False
            raise

    def _on_entered(self, _: object) -> None:
        """Entered, or ended before that."""
        if not self._entered.done():
            self._entered.set_result(None)

    # --- in trio -------------------------------------------------------------------------------------

    async def _live(self) -> bool:
        """Enter, wait, leave; whether the manager swallowed the exception of the block."""
        self._left = trio.Event()
        self._value = await self._manager.__aenter__()
        try:
            self._loop.post(self._on_entered, None)
            await self._left.wait()
        except BaseException as error:
            if not await self._manager.__aexit__(type(error), error, error.__traceback__):
                raise
            return False
        return bool(await self._manager.__aexit__(*self._how_left))

    def _leave(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._how_left = (kind, error, trace)
        self._left.set()


class SharedTrioThread:
    """A trio thread for all who use it at the same time: the first starts it, the last stops it."""

    def __init__(self, name: str = "trio") -> None:
        self._name = name
        self._lock = threading.Lock()
        self._thread: TrioThread | None = None
        self._users = 0

    async def run(self, function: Callable[[], Awaitable[T]]) -> T:
        """As `TrioThread.run`."""
        thread = self._join()
        try:
            return await thread.run(function)
        finally:
            await self._leave(thread)

    @asynccontextmanager
    async def open(self, manager: AbstractAsyncContextManager[T]) -> AsyncIterator[T]:
        """As `TrioThread.open`."""
        thread = self._join()
        try:
            async with thread.open(manager) as value:
                yield value
        finally:
            await self._leave(thread)

    def _join(self) -> TrioThread:
        with self._lock:
            if self._thread is None:
                self._thread = TrioThread(self._name)
                self._thread.start()
            self._users += 1
            return self._thread

    async def _leave(self, thread: TrioThread) -> None:
        with self._lock:
            self._users -= 1
            is_last = self._users == 0
            if is_last:
                self._thread = None
        if is_last:
            await thread.stop()
