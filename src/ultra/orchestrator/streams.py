"""One run and its events. A plain call is the same run with a sink that has no reader."""

from __future__ import annotations

import sys
from math import inf
from typing import TYPE_CHECKING, Protocol, Self

import trio

from ultra.actors.coordinator.messages import EventSink
from ultra.actors.runtime.ask_group import AskGroup, AskResult
from ultra.bridge.interruption import is_interruption
from ultra.errors import BadCall, StrategyFailed, text_of
from ultra.messages.events import RunCompleted, RunFailed
from ultra.orchestrator.event_buffer import EventBuffer
from ultra.orchestrator.run_end import RunEnd

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from ultra._support.reminders import Reminder
    from ultra.actors.coordinator.messages import Execute, LocalRun
    from ultra.messages.events import Event
    from ultra.messages.results import OrchestrationResult
    from ultra.orchestrator.lifespan import Lifespan
    from ultra.orchestrator.run_end import RunWatch
    from ultra.orchestrator.tree import ModelTree

__all__ = ["LiveRun", "RunMaker", "RunSource", "RunStream"]


class RunMaker(Protocol):
    """Makes the message of a run that was checked, once there are actors."""

    def __call__(self, tree: ModelTree, run_id: str, sink: EventSink) -> tuple[Execute, LocalRun]:
        """Return the message, and what stays in `LocalRuns`; raise `BadCall` if the models have changed."""
        ...


class RunSink(EventSink, Protocol):
    """A sink that can be closed."""

    def close(self) -> None:
        """Take no more events, since the block of the run was left."""


class RunSource(Protocol):
    """What a `RunStream` reads: a `LiveRun` or an `OverriddenRun`."""

    reply: AskResult[None, OrchestrationResult] | None
    """How the run ended; None while it goes on, and if its block was left before its end."""

    def block(self) -> AbstractAsyncContextManager[RunSink, bool | None]:
        """Return the context manager in which the run goes on, for the loop of the caller."""
        ...

    def wait(self) -> Awaitable[None]:
        """Return what waits, on the loop of the caller, until the run has ended, or its block has."""
        ...


class LiveRun:
    """A run by the actors of an orchestrator. `make_sink` makes the sink of its events, given its id."""

    def __init__(
        self,
        run_id: str,
        lifespan: Lifespan,
        make_run: RunMaker,
        make_sink: Callable[[str], RunSink],
        watch: RunWatch,
    ) -> None:
        self.reply: AskResult[None, OrchestrationResult] | None = None
        self._over = trio.Event()
        self.run_id = run_id
        self._lifespan = lifespan
        self._make_run = make_run
        self._make_sink = make_sink
        self._watch = watch
        self._end: RunEnd | None = None
        self._reminder: Reminder | None = None
        self._actors = lifespan.use()
        self._asks: AskGroup[None, OrchestrationResult] = AskGroup(self._on_reply)

    def outcome(self) -> Awaitable[OrchestrationResult]:
        """Return what carries out the run, for a caller who reads no events, and gives its result.

        From asyncio, the block is entered and left in one call to where the actors run: each takes a wake-up
        of either thread.
        """
        return self._lifespan.trio_run.run(self._outcome)

    def block(self) -> AbstractAsyncContextManager[RunSink, bool | None]:
        """Return the context manager of the run, which is entered and left where the actors run."""
        return self._lifespan.trio_run.wrap_context_manager(self)

    def wait(self) -> Awaitable[None]:
        """Return what waits until the run has ended, or its block has."""
        return self._lifespan.trio_run.run(self._over.wait)

    # --- where the actors run ----------------------------------------------------------------------------

    async def _outcome(self) -> OrchestrationResult:
        try:
            async with self:
                await self._over.wait()
                return _result_of(self.reply)
        finally:
            del self  # it knows the error, whose traceback refers to this frame

    async def __aenter__(self) -> RunSink:
        tree = self._tree = await self._actors.__aenter__()
        try:
            self._sink = self._make_sink(self.run_id)
            execute, local = self._make_run(tree, self.run_id, self._sink)
            self._output = local.output
            self._end = RunEnd(execute, local, self._watch)
            local = self._end.local
            tree.runs.add(self.run_id, local)
            self._asks.ask(tree.coordinator, execute, None)
            if local.deadline < inf and self.reply is None:
                self._reminder = tree.reminders.add(local.given_up_at, self._give_up)
        except BaseException:
            self._asks.close()
            tree.runs.discard(self.run_id)
            if self._end is not None and self.reply is None:
                self._end.cancelled()
            await self._actors.__aexit__(*sys.exc_info())
            raise
        return self._sink

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        self._asks.close()
        del self._asks  # it refers to this, and the garbage collector would have to find that out
        self._tree.runs.discard(self.run_id)
        if self.reply is None:
            self._told().cancelled()
            self._sink.close()
            self._is_over()
        return await self._actors.__aexit__(kind, error, trace)

    def _give_up(self) -> None:
        """Give the run up, a second after its deadline."""
        self._reminder = None
        self._asks.close()
        self._on_reply(AskResult(None, error=self._told().local.given_up()))

    def _is_over(self) -> None:
        """Wake who waits for the end, and wait no longer for the time at which the run is given up."""
        if self._reminder is not None:
            self._reminder.cancel()
            self._reminder = None
        self._over.set()

    def _told(self) -> RunEnd:
        assert self._end is not None  # noqa: S101 - the block was entered
        return self._end

    def _on_reply(self, reply: AskResult[None, OrchestrationResult]) -> None:
        failed = reply.error if reply.value is None else self._give_output(reply.value)
        if failed is None and reply.value is not None:
            self.reply = reply
            self._told().answered(reply.value)
            self._sink.emit(RunCompleted(result=reply.value))
        elif failed is not None:
            error = self._lifespan.explain(failed)
            self.reply = AskResult(None, error=error)
            self._told().failed(error)
            self._sink.emit(RunFailed(error=type(error).__name__, message=text_of(error)))
        self._is_over()

    def _give_output(self, result: OrchestrationResult) -> Exception | None:
        """Give the result its output as a value of the caller's type; return what that raised."""
        answer = result.final_synthesis
        if self._output is None or result.plain_output is None or answer is None:
            return None
        try:
            result.with_output(self._output.value_in(answer.content))
        except BaseException as error:
            if is_interruption(error):
                raise
            return StrategyFailed(result.strategy, error)
        return None


class RunStream:
    """One run and its events, made by `MultiLLMOrchestrator.stream_responses`.

    Iterate over it for the events; `result` returns the result, whether the events are read or not. The
    last event is a `RunCompleted` or a `RunFailed`, exactly one. A slow reader delays no model and loses no
    text: unread chunks of one answer are joined. Leaving the block cancels the run; a task that still
    iterates or waits for the result then gets a `BadCall`. ::

        async with orchestrator.stream_responses("Your prompt") as run:
            async for event in run:
                print(event)
            result = await run.result()
    """

    def __init__(self, run_id: str, run: RunSource) -> None:
        self.run_id = run_id
        self._run = run
        self._block: AbstractAsyncContextManager[RunSink, bool | None] | None = None
        self._events: RunSink | None = None

    async def __aenter__(self) -> Self:
        if self._block is not None:
            raise BadCall("a run can be streamed only once; call stream_responses again")
        self._block = self._run.block()
        self._events = await self._block.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        return await self._block.__aexit__(kind, error, trace) if self._block is not None else None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        self._check_opened()
        if not isinstance(self._events, EventBuffer):
            raise StopAsyncIteration
        event = await self._events.next()
        if event is not None:
            return event
        if self._run.reply is None:
            raise _left()
        raise StopAsyncIteration

    def ready(self) -> list[Event]:
        """Return the events that need not be waited for, which are read then; none once the block was left.

        A reader that takes all of them at once gives others their turn once, and not for each event.
        """
        self._check_opened()
        return self._events.ready() if isinstance(self._events, EventBuffer) else []

    async def for_each(self, take: Callable[[Event], None]) -> None:
        """Call ``take(event)`` with each event, up to the last one.

        It must not block: on trio it is called where the event happens, with the context variables of this
        task. What it raises is raised here, and ends the following; so does its cancelling this task. The
        events behind that one can still be read. Cancelling this takes no event.
        """
        self._check_opened()
        if isinstance(self._events, EventBuffer):
            await self._events.for_each(take)
            if self._run.reply is None:
                raise _left()

    async def result(self) -> OrchestrationResult:
        """Wait until the run has ended, and return its result; raise what `process_responses` raises.

        Cancelling this leaves the run as it is.
        """
        self._check_opened()
        if self._run.reply is None:
            await self._run.wait()
        try:
            return _result_of(self._run.reply)
        finally:
            del self  # it knows the error, whose traceback refers to this frame

    @property
    def has_unread(self) -> bool:
        """Whether there are events that were not read yet."""
        return isinstance(self._events, EventBuffer) and self._events.has_unread

    def _check_opened(self) -> None:
        if self._events is None:
            raise BadCall("the run has not begun: use 'async with orchestrator.stream_responses(...) as run'")


def _result_of(reply: AskResult[None, OrchestrationResult] | None) -> OrchestrationResult:
    """Return the result of a run that has ended so, or raise its error."""
    if reply is not None and reply.value is not None:
        return reply.value
    error = _left() if reply is None or reply.error is None else reply.error
    try:
        raise error
    finally:
        del reply, error  # the error's traceback refers to this frame


def _left() -> BadCall:
    return BadCall("the run's block was left before the run had ended, so there is no result")
