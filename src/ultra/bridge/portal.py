"""A portal from asyncio to trio: a trio run in a thread of its own.

Async functions that are passed in run in trio's thread, and coroutines on an asyncio loop wait for them.
Exceptions come back as they are, and context variables are passed on. A coroutine that is cancelled cancels
what it waits for in trio, and goes on, cancelled, when that has ended: nothing is left running.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import trio
from outcome import Error, Value

from ultra.bridge.asyncio_loop import AsyncioLoop, TrioQueues
from ultra.bridge.call_queue import CallQueue
from ultra.errors import LoopUnavailable, StrayCancelled, title_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from types import TracebackType

    from outcome import Outcome

__all__ = ["SharedTrioThread", "TrioThread"]

T = TypeVar("T")


class TrioThread:
    """One thread with one trio run, from `start` to `stop`.

    What `anyio.from_thread.BlockingPortal` is to synchronous programs, this is to asyncio::

        thread = TrioThread()
        thread.start()
        answer = await thread.run(ask_on_trio)
        await thread.stop()

    The thread is a daemon, so a program can end even if its asyncio loop never got to `stop`.
    """

    def __init__(self, name: str = "trio") -> None:
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._queue = CallQueue(self._wake)
        self._token: trio.lowlevel.TrioToken | None = None
        self._nursery: trio.Nursery | None = None
        self.users = 0
        """How many use it; counted by `SharedTrioThread`."""
        self.calls: dict[_TrioCall[Any], None] = {}
        self._lock = threading.Lock()
        self._ended = False
        self._on_end: Callable[[], object] | None = None

    def start(self) -> None:
        """Start the thread. What is passed to it before trio is ready waits until then.

        Raises:
            LoopUnavailable: the system gives no more threads.
        """
        try:
            self._thread.start()
        except RuntimeError as error:
            raise LoopUnavailable(f"the trio thread cannot be started: {error}") from error

    @property
    def has_ended(self) -> bool:
        """Whether the thread takes no more calls."""
        return self._ended

    async def run(self, function: Callable[[], Awaitable[T]]) -> T:
        """Call the async function in a trio task, wait for its end, and return its result.

        It sees a copy of the caller's context variables. Cancelled, this cancels the trio task, waits for its
        end, and drops what it returns or raises.

        Raises:
            LoopUnavailable: the thread ended before the function did.
            BaseException: what the function raised.
        """
        call = _TrioCall(self, function)
        try:
            call.submit()
            return cast("T", await call.future)
        finally:
            call.cancel()  # does nothing, unless this coroutine was thrown away
            del call, function  # or an error would refer to itself: traceback, frame, future, error

    def wrap_context_manager(self, manager: AbstractAsyncContextManager[T]) -> AbstractAsyncContextManager[T]:
        """Return a context manager for asyncio that enters and leaves `manager` in one task of this thread.

        If trio ends the block itself, as a nursery does when a task in it fails, the error is raised when the
        block is left.
        """
        return _WrappedContextManager(self, manager)

    async def stop(self) -> None:
        """Cancel what runs, and wait for the end of the thread, even if cancelled. Call it once."""
        loop = AsyncioLoop.running()
        ended = _ShieldedFuture[None](lambda: None)
        with self._lock:
            if not self._ended:
                self._on_end = partial(loop.post, ended.set_result, None)
                with suppress(LoopUnavailable):  # it is just about to end by itself
                    self.post(self._cancel_all)
        try:
            if self._on_end is not None:
                await ended
        finally:
            if self._ended:  # even if this was cancelled meanwhile
                self._thread.join()  # it has nothing left to do

    def post(self, function: Callable[..., object], *args: object) -> None:
        """Have ``function(*args)`` called in the thread, soon and in order; it must not raise.

        Raises:
            LoopUnavailable: the thread has ended.
        """
        self._queue.put(function, *args)
        self._queue.flush()

    def _wake(self, deliver: Callable[[], None]) -> None:
        if self._token is None:
            return  # not ready; `_serve` delivers what waits
        try:
            self._token.run_sync_soon(deliver)
        except trio.RunFinishedError as error:
            raise _ended(error) from None

    # --- in the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        failure: Exception | None = None
        try:
            trio.run(self._serve)
        except Exception as error:  # noqa: BLE001 - such as no file descriptors: those who wait hear of it
            failure = error
        finally:
            with self._lock:
                self._ended = True
                calls = tuple(self.calls)
            for call in calls:
                call.report(Error(_ended(failure)))
            if self._on_end is not None:
                with suppress(LoopUnavailable):
                    self._on_end()

    def admit(self, call: _TrioCall[Any]) -> None:
        """Know of a call, which hears of it if the thread ends before the call does.

        Raises:
            LoopUnavailable: the thread has ended.
        """
        with self._lock:
            if self._ended:
                raise _ended(None)
            self.calls[call] = None

    async def _serve(self) -> None:
        TrioQueues.install(self._queue)
        async with trio.open_nursery() as self._nursery:
            self._token = trio.lowlevel.current_trio_token()
            self._queue.deliver()
            await trio.sleep_forever()

    def spawn(self, function: Callable[[], Awaitable[object]]) -> None:
        """Start a trio task with a copy of the current context variables. In the thread only."""
        if self._nursery is not None:
            self._nursery.start_soon(function)

    def _cancel_all(self) -> None:
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()


def _ended(cause: Exception | None) -> LoopUnavailable:
    why = "" if cause is None or isinstance(cause, trio.RunFinishedError) else f": {title_of(cause)}"
    error = LoopUnavailable(f"the trio thread has ended{why}")
    error.__cause__ = cause
    return error


class _ShieldedFuture(asyncio.Future[T]):
    """A future for which a task waits even if it is cancelled.

    `Task.cancel` first tries to cancel the future that the task waits for. This one calls `on_cancel` and
    refuses; asyncio then cancels the task when the future is done.
    """

    def __init__(self, on_cancel: Callable[[], None]) -> None:
        super().__init__()
        self._on_cancel = on_cancel

    def cancel(self, msg: object = None) -> bool:  # noqa: ARG002 - asyncio's signature
        self._on_cancel()
        return False

    def forget(self) -> None:
        """Once it is done, keep nothing alive that would be told of a cancellation."""
        self._on_cancel = _nothing


def _nothing() -> None:
    pass


class _TrioCall(Generic[T]):
    """One async function in a trio task, and the asyncio future of its result."""

    def __init__(self, thread: TrioThread, function: Callable[[], Awaitable[T]]) -> None:
        self.future: _ShieldedFuture[T | None] = _ShieldedFuture(self.cancel)
        self._thread = thread
        self._function = function
        self._context = contextvars.copy_context()
        self._loop = AsyncioLoop.running()
        self._scope = trio.CancelScope()
        self._cancelled = False

    # --- on asyncio ----------------------------------------------------------------------------------

    def submit(self) -> None:
        self._thread.admit(self)
        self._thread.post(self._start)

    def cancel(self) -> None:
        if not (self._cancelled or self.future.done()):
            self._cancelled = True
            with suppress(LoopUnavailable):
                self._thread.post(self._scope.cancel)

    def _set_outcome(self, outcome: Outcome[T] | None) -> None:
        if self.future.done():
            return
        if outcome is None or self._cancelled:
            self.future.set_result(None)  # nobody sees it: the task that waits is cancelled now
        elif isinstance(outcome, Error):
            self.future.set_exception(outcome.error)
        else:
            self.future.set_result(outcome.unwrap())
        self.future.forget()  # it would refer to itself: future, method, call, future

    # --- in trio -------------------------------------------------------------------------------------

    def _start(self) -> None:
        self._context.run(self._thread.spawn, self._run)

    async def _run(self) -> None:
        outcome: Outcome[T] | None = None
        try:
            with self._scope:
                outcome = Value(await self._function())
        except BaseException as error:
            if not _has_cancelled(error):
                outcome = Error(error)
            elif trio.current_effective_deadline() == -inf:
                outcome = Error(LoopUnavailable("the trio thread was stopped"))
                raise
            else:  # it would end the thread, and all that others do in it
                outcome = Error(StrayCancelled(error))
        finally:
            self.report(outcome)
            del self, outcome  # or an error would refer to itself: traceback, frame, outcome, error

    def report(self, outcome: Outcome[T] | None) -> None:
        """Give the future its outcome, once; None: the function was cancelled, as asked for."""
        if self._thread.calls.pop(self, self) is None:
            with suppress(LoopUnavailable):  # the loop was closed, so nobody waits there any more
                self._loop.post(self._set_outcome, outcome)


def _has_cancelled(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(trio.Cancelled) is not None
    return isinstance(error, trio.Cancelled)


class _WrappedContextManager(AbstractAsyncContextManager[T, bool]):
    """A trio context manager that is entered and left from asyncio, both in one trio task."""

    def __init__(self, thread: TrioThread, manager: AbstractAsyncContextManager[T]) -> None:
        self._thread = thread
        self._manager = manager

    async def __aenter__(self) -> T:
        self._loop = AsyncioLoop.running()
        self._call = call = _TrioCall(self._thread, self._hold)
        self._entered = _ShieldedFuture[None](call.cancel)
        call.future.add_done_callback(self._on_entered)
        call.submit()
        try:
            await self._entered
        except BaseException:
            call.cancel()
            with suppress(Exception):  # what went wrong meanwhile; this is cancelled in any case
                await call.future
            raise
        if call.future.done():
            call.future.result()
        return self._value

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        with suppress(LoopUnavailable):  # then that has ended the call
            self._thread.post(self._leave, kind, error, trace)
        call = self._call
        try:
            return bool(await call.future)
        except BaseException as raised:
            if raised is error:
                return False
            raise
        finally:
            del self._call  # it refers to this
            del self, call, error, trace  # or an error would refer to itself: traceback, frame, error

    def _on_entered(self, _: object) -> None:
        """Let `__aenter__` go on: the manager was entered, or the call has ended before."""
        if not self._entered.done():
            self._entered.set_result(None)
        self._entered.forget()

    # --- in trio -------------------------------------------------------------------------------------

    async def _hold(self) -> bool:
        """Enter, wait, leave; return whether the manager swallowed the exception of the block."""
        self._left = trio.Event()
        self._value = await self._manager.__aenter__()
        try:
            self._loop.post(self._on_entered, None)
            await self._left.wait()
        except BaseException as error:
            if not await self._manager.__aexit__(type(error), error, error.__traceback__):
                raise
            return False
        try:
            return bool(await self._manager.__aexit__(*self._exception))
        finally:
            del self  # it knows the error, whose traceback refers to this frame

    def _leave(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._exception = (kind, error, trace)
        self._left.set()


class SharedTrioThread:
    """A trio thread for all that use it at the same time: the first starts it, the last stops it.

    A thread that cannot be started, or has died, is replaced by the next call that needs one.
    """

    def __init__(self, name: str = "trio") -> None:
        self._name = name
        self._lock = threading.Lock()
        self._thread: TrioThread | None = None

    async def run(self, function: Callable[[], Awaitable[T]]) -> T:
        """Do what `TrioThread.run` does."""
        thread = self._acquire()
        try:
            return await thread.run(function)
        finally:
            del function  # it may know the error, whose traceback refers to this frame
            await self._release(thread)

    @asynccontextmanager
    async def wrap_context_manager(self, manager: AbstractAsyncContextManager[T]) -> AsyncIterator[T]:
        """Do what `TrioThread.wrap_context_manager` does."""
        thread = self._acquire()
        wrapped = thread.wrap_context_manager(manager)
        del manager  # it may know the error of the block, whose traceback refers to this frame
        try:
            async with wrapped as value:
                del wrapped  # it knows the manager
                yield value
        finally:
            await self._release(thread)

    def _acquire(self) -> TrioThread:
        with self._lock:
            thread = self._thread
            if thread is None or thread.has_ended:
                thread = TrioThread(self._name)
                thread.start()
                self._thread = thread
            thread.users += 1
            return thread

    async def _release(self, thread: TrioThread) -> None:
        with self._lock:
            thread.users -= 1
            is_last = thread.users == 0
            if is_last and self._thread is thread:
                self._thread = None
        if is_last:
            await thread.stop()
