"""Runs by the overridden `process_responses` of a subclass, as `stream_responses` streams them.

The method runs in a task on the loop of the caller. The events are those of the runs that it makes, and what
it returns is the result. If the method itself calls `stream_responses`, that streams a run of the base class,
and not the method again.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from contextvars import ContextVar
from functools import wraps
from inspect import signature
from itertools import count
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import trio
from msgspec.structs import replace

from ultra._support.async_library import in_trio
from ultra.actors.runtime.ask_group import AskResult
from ultra.bridge.interruption import is_interruption
from ultra.errors import BadCall, StrayCancelled, UsageError, text_of
from ultra.messages.events import Chunk, ReasoningChunk, RunCompleted, RunFailed
from ultra.messages.results import OrchestrationResult
from ultra.orchestrator.event_buffer import EventBuffer

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Coroutine, Mapping
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from ultra.messages.conversation import Conversation
    from ultra.messages.events import Event

__all__ = [
    "CopyingBuffer",
    "NestedRunSink",
    "OuterBuffer",
    "OverriddenRun",
    "check_takes",
    "is_overriding",
    "marked",
    "outer_run",
]

P = ParamSpec("P")
T = TypeVar("T")

outer_run: ContextVar[OuterBuffer | None] = ContextVar("outer_run", default=None)
"""The buffer for the events of runs that an overridden `process_responses` makes, while it is streamed."""

_overriding: ContextVar[tuple[object, ...]] = ContextVar("overriding", default=())


def marked(process: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Return the `process_responses` of a subclass, changed so that `is_overriding` is true inside it."""

    @wraps(process)
    async def marked_process(*args: P.args, **kwargs: P.kwargs) -> T:
        token = _overriding.set((*_overriding.get(), *args[:1]))  # the first one is the orchestrator
        try:
            return await process(*args, **kwargs)
        finally:
            _overriding.reset(token)

    return marked_process


def is_overriding(orchestrator: object) -> bool:
    """Return whether the caller runs inside an overridden `process_responses` of `orchestrator`."""
    return any(each is orchestrator for each in _overriding.get())


def check_takes(process: Callable[..., object], given: Mapping[str, object], what: str) -> None:
    """Raise `BadCall` unless ``process(prompt, **given)`` can be called; `what` says what it cannot."""
    try:
        signature(process).bind("", **given)
    except TypeError as error:
        raise BadCall(
            f"{getattr(process, '__qualname__', process)} overrides process_responses and cannot {what} with "
            f"these arguments: {error}"
        ) from None


class OuterBuffer(EventBuffer):
    """The events of a run that consists of other runs."""

    def __init__(self, run_id: str, now: Callable[[], float], *, listens: bool = True) -> None:
        super().__init__(run_id, now, listens=listens)
        self._rounds: defaultdict[str, count[int]] = defaultdict(count)

    def next_round(self, stage: str) -> int:
        """Return the next round for a step of this name, from 0."""
        return next(self._rounds[stage])


class NestedRunSink:
    """The sink of a run that is a part of an outer run: it passes on all events but the last.

    Rounds count on from those of the other runs inside the outer one.
    """

    def __init__(self, outer: OuterBuffer, _run_id: str) -> None:
        self.listens = outer.listens
        self._outer = outer
        self._rounds: dict[tuple[str, int], int] = {}

    def emit(self, event: Event) -> None:
        """Pass the event on, unless it is the last one."""
        if isinstance(event, (RunCompleted, RunFailed)):
            return
        step = event.stage, event.round
        if step not in self._rounds:
            self._rounds[step] = self._outer.next_round(event.stage)
        self._outer.emit(replace(event, round=self._rounds[step]))

    def close(self) -> None:
        """Do nothing: the outer run goes on."""


class CopyingBuffer(EventBuffer):
    """The events of a run that is a part of an outer run, for a reader of its own, too.

    Of the two readers, one may want chunks and the other none; then the answers are streamed.
    """

    def __init__(self, outer: OuterBuffer, run_id: str, *, chunks: bool = True) -> None:
        super().__init__(run_id, listens=chunks or outer.listens)
        self._chunks = chunks
        self._part = NestedRunSink(outer, run_id)

    def emit(self, event: Event) -> None:
        """Add the event here, and pass it on."""
        is_chunk = isinstance(event, Chunk | ReasoningChunk)
        if self._chunks or not is_chunk:
            super().emit(event)
        if self._part.listens or not is_chunk:
            self._part.emit(event)


class OverriddenRun:
    """A run by ``process(prompt, **arguments)``, the `process_responses` of a subclass.

    `chunks`: whether the reader of its events wants texts as they are written.

    Raises:
        BadCall: the method does not take these arguments.
    """

    def __init__(
        self,
        run_id: str,
        process: Callable[..., Awaitable[OrchestrationResult]],
        prompt: Conversation,
        arguments: Mapping[str, object],
        *,
        chunks: bool = True,
    ) -> None:
        given = {name: value for name, value in arguments.items() if value is not None}
        check_takes(process, given, "be streamed")
        self.reply: AskResult[None, OrchestrationResult] | None = None
        self._run_id = run_id
        self._process = process
        self._prompt = prompt
        self._given = given
        self._chunks = chunks

    def block(self) -> AbstractAsyncContextManager[EventBuffer, bool | None]:
        """Return the context manager of the run, for the loop of the caller."""
        self._loop: _OnTrio | _OnAsyncio = _OnTrio() if in_trio() else _OnAsyncio()
        return self

    async def wait(self) -> None:
        """Wait until the run has ended, or its block has."""
        await self._loop.wait()

    async def __aenter__(self) -> EventBuffer:
        now = trio.current_time if in_trio() else time.monotonic
        self._buffer = OuterBuffer(self._run_id, now, listens=self._chunks)
        token = outer_run.set(self._buffer)
        try:
            await self._loop.start(self._execute)
        finally:
            outer_run.reset(token)
        return self._buffer

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        if self.reply is None:
            self._buffer.close()
        return await self._loop.stop(kind, error, trace)

    async def _execute(self) -> None:
        try:
            result: object = await self._process(self._prompt, **self._given)
            if not isinstance(result, OrchestrationResult):
                raise UsageError(  # noqa: TRY301 - it is a failure of the method
                    f"{self._process.__qualname__} gave {type(result).__name__}; to be streamed, it must "
                    "return an OrchestrationResult, as process_responses does"
                )
        except Exception as error:  # noqa: BLE001 - raised by `RunStream.result`
            self._failed(error)
        except BaseException as error:
            if is_interruption(error) or isinstance(error, (SystemExit, GeneratorExit)):
                self._buffer.close()  # or a reader that is not cancelled, too, would wait for ever
                raise
            self._failed(StrayCancelled(error))  # such as that of a task for which the method waited
        else:
            self.reply = AskResult(None, value=result)
            self._buffer.emit(RunCompleted(result=result))

    def _failed(self, error: Exception) -> None:
        self.reply = AskResult(None, error=error)
        self._buffer.emit(RunFailed(error=type(error).__name__, message=text_of(error)))


class _Task:
    """A task, and the event of its loop that it is over."""

    _over: trio.Event | asyncio.Event

    async def wait(self) -> None:
        await self._over.wait()

    async def _run(self, function: Callable[[], Awaitable[None]]) -> None:
        try:
            await function()
        finally:
            self._over.set()


class _OnTrio(_Task):
    """A task in a nursery that is open from `start` to `stop`."""

    def __init__(self) -> None:
        self._over = trio.Event()
        self._manager: Any = trio.open_nursery()

    async def start(self, function: Callable[[], Awaitable[None]]) -> None:
        self._nursery: trio.Nursery = await self._manager.__aenter__()
        self._nursery.start_soon(self._run, function)

    async def stop(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        self._nursery.cancel_scope.cancel()
        try:
            stopped: bool | None = await self._manager.__aexit__(kind, error, trace)
        except BaseExceptionGroup as group:
            # The task raises nothing but cancellation, so the only error in the group is that of the block.
            if error is not None and group.exceptions == (error,):
                return False
            raise
        return stopped


class _OnAsyncio(_Task):
    """An asyncio task that goes on from `start` to `stop`."""

    def __init__(self) -> None:
        self._asyncio: Any = sys.modules["asyncio"]  # the caller runs on it
        self._over = self._asyncio.Event()

    async def start(self, function: Callable[[], Awaitable[None]]) -> None:
        self._task: asyncio.Task[None] = self._asyncio.create_task(self._run(function))

    async def stop(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        del kind, error, trace
        self._task.cancel()
        cancelled: BaseException | None = None
        while not self._task.done():
            try:
                await self._asyncio.wait([self._task])
            except self._asyncio.CancelledError as again:  # no reason to leave the task behind
                cancelled = again
                self._task.cancel()
        if cancelled is not None:
            raise cancelled
        return None
