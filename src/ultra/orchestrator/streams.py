"""Reading a run while it goes on: a buffer that merges what waits, and the block around it."""

from __future__ import annotations

import sys
import threading
from collections import deque
from functools import partial
from io import StringIO
from math import inf
from typing import TYPE_CHECKING, Any, Protocol, Self

import trio
from trio.lowlevel import (
    Abort,
    checkpoint,
    current_task,
    enable_ki_protection,
    in_trio_run,
    reschedule,
    wait_task_rescheduled,
)

from ultra.actors.coordinator.actor import Execute
from ultra.actors.coordinator.run import until
from ultra.actors.runtime.ask_group import AskGroup, AskResult
from ultra.errors import BadCall
from ultra.messages.events import (
    Chunk,
    Event,
    ModelFailed,
    ModelResponded,
    ModelRetrying,
    RunCompleted,
    RunFailed,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from ultra.actors.coordinator.plan import EventSink, RunPlan
    from ultra.messages.results import OrchestrationResult
    from ultra.orchestrator.lifespan import Lifespan
    from ultra.orchestrator.tree import ModelTree

__all__ = ["EventBuffer", "PlanMaker", "RunStream"]


class PlanMaker(Protocol):
    """Makes the plan of a run that was checked, now that there are actors to carry it out."""

    def __call__(self, tree: ModelTree, run_id: str, sink: EventSink | None) -> RunPlan:
        """The plan, for actors of `tree`; events go to `sink`. Raises `BadCall` if it is too late for it."""
        ...


class _Waiting:
    """An event that nobody has read."""

    __slots__ = ("event", "fields", "time")

    def __init__(self, event: type[Event], fields: dict[str, Any], time: float) -> None:
        self.event = event
        self.fields = fields
        self.time = time


class _WaitingChunk(_Waiting):
    """A chunk that nobody has read, and to which more text may be joined."""

    __slots__ = ("text",)

    def __init__(self, key: tuple[str, str], text: str, *, restart: bool, time: float) -> None:
        super().__init__(Chunk, {"stage": key[0], "model_name": key[1], "restart": restart}, time)
        self.text: str | StringIO = text

    def join(self, text: str) -> None:
        """Add to the text, in one buffer: pieces of their own would take many times the room."""
        if isinstance(self.text, str):
            first, self.text = self.text, StringIO()
            self.text.write(first)
        self.text.write(text)

    def begin_anew(self, text: str) -> None:
        """Put another text in the place of this one; the reader may have read a part that came before."""
        self.text = text
        self.fields["restart"] = True


def _nobody() -> None:
    """Stands in for what wakes a reader, while none waits."""


class EventBuffer:
    """The events of one run between the actors and one reader, who may be on an asyncio loop.

    Writing never blocks. A chunk that comes while another of the same model waits is joined to it, so
    what waits is bounded by the text and not by the number of chunks; a restart replaces what waits.
    Events are numbered as they are read.
    """

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._started = trio.current_time()
        self._seq = 0
        self._lock = threading.Lock()  # a reader on asyncio is in another thread than the actors
        self._events: deque[_Waiting] = deque()
        self._open: dict[tuple[str, str], _WaitingChunk] = {}  # to which more may be joined
        self._told: dict[tuple[str, str], None] = {}  # of whom there was text already
        self._reading = False
        self._wake_reader: Callable[[], None] = _nobody
        self._ended = False

    # --- written by the actors -------------------------------------------------------------------------

    def emit(self, event: type[Event], **fields: Any) -> None:  # noqa: ANN401 - the fields of any event
        """Add one event; after the last one, do nothing."""
        self._add(event, fields)

    def end(self, event: type[Event], **fields: Any) -> None:  # noqa: ANN401 - as above
        """Add the last event."""
        self._add(event, fields, last=True)

    def chunk(self, stage: str, model_name: str, text: str, begins: bool) -> None:  # noqa: FBT001 - a callback
        """Add a piece of text. One that begins a text of which there was some already is a restart."""
        key = stage, model_name
        with self._lock:
            if self._ended:
                return
            restart = begins and key in self._told
            waiting = self._open.get(key)
            if waiting is None:
                time = trio.current_time() - self._started
                waiting = self._open[key] = _WaitingChunk(key, text, restart=restart, time=time)
                self._told[key] = None
                self._events.append(waiting)
            elif restart:
                waiting.begin_anew(text)
            else:
                waiting.join(text)
            wake = self._take_reader()
        wake()

    def close(self) -> None:
        """There will be no reader any more: forget what waits, and let a reader that waits go."""
        with self._lock:
            self._ended = True
            self._events.clear()
            self._open.clear()
            wake = self._take_reader()
        wake()

    def _add(self, event: type[Event], fields: dict[str, Any], *, last: bool = False) -> None:
        with self._lock:
            if self._ended:
                return
            self._ended = last
            if event is ModelResponded or event is ModelFailed:
                self._open.pop((fields["stage"], fields["model_name"]), None)
            elif event is ModelRetrying:
                self._forget_unread_text((fields["stage"], fields["model_name"]))
            self._events.append(_Waiting(event, fields, trio.current_time() - self._started))
            wake = self._take_reader()
        wake()

    def _forget_unread_text(self, key: tuple[str, str]) -> None:
        """What an attempt that failed has streamed counts for nothing; what follows it is a restart."""
        unread = self._open.pop(key, None)
        if unread is not None:
            self._events.remove(unread)

    def _take_reader(self) -> Callable[[], None]:
        """What wakes the reader that waits, if one does; with the lock, so that no new one is missed."""
        wake, self._wake_reader = self._wake_reader, _nobody
        return wake

    # --- read by one task ------------------------------------------------------------------------------

    async def next(self) -> Event | None:
        """Wait for the next event; None after the last. Cancelled, it took none. On trio, a checkpoint."""
        if self._reading:
            raise BadCall("another task is reading this run; open one stream for each reader")
        self._reading = True
        try:
            await (self._arrival_on_trio() if in_trio_run() else self._arrival_on_asyncio())
        finally:
            self._reading = False
        with self._lock:
            return self._read() if self._events else None

    @enable_ki_protection
    async def _arrival_on_trio(self) -> None:
        if self._events or self._ended:
            await checkpoint()
        else:
            self._wake_reader = partial(reschedule, current_task())
            await wait_task_rescheduled(self._stop_reading)

    async def _arrival_on_asyncio(self) -> None:
        from ultra.bridge.asyncio_loop import Alarm  # noqa: PLC0415 - imports asyncio

        with self._lock:
            if self._events or self._ended:
                return
            alarm = Alarm()
            self._wake_reader = alarm.ring
        await alarm.wait()

    def _stop_reading(self, _raise_cancel: object) -> Abort:
        self._wake_reader = _nobody
        return Abort.SUCCEEDED

    def _read(self) -> Event:
        waiting = self._events.popleft()
        fields = waiting.fields
        if isinstance(waiting, _WaitingChunk):
            self._open.pop((fields["stage"], fields["model_name"]), None)
            text = waiting.text
            fields["text"] = text if isinstance(text, str) else text.getvalue()
        self._seq += 1
        return waiting.event(run_id=self._run_id, seq=self._seq - 1, time=waiting.time, **fields)


class _LiveRun:
    """The block of one run, on trio: entered, the run has begun; left, it has ended or is cancelled."""

    def __init__(self, run_id: str, lifespan: Lifespan, make_plan: PlanMaker) -> None:
        self.reply: AskResult[None, OrchestrationResult] | None = None
        self.over = trio.Event()
        self._run_id = run_id
        self._lifespan = lifespan
        self._make_plan = make_plan
        self._loan = lifespan.lend()
        self._asks: AskGroup[None, OrchestrationResult] = AskGroup(self._on_reply)

    async def __aenter__(self) -> EventBuffer:
        tree = await self._loan.__aenter__()
        try:
            self._buffer = EventBuffer(self._run_id)
            plan = self._make_plan(tree, self._run_id, self._buffer)
            self._asks.ask(tree.coordinator, Execute(plan), None)
            if plan.timeout < inf and self.reply is None:
                tree.system.start_soon(self._see_it_end, plan)
        except BaseException:
            await self._loan.__aexit__(*sys.exc_info())
            raise
        return self._buffer

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        self._asks.close()
        if self.reply is None:
            self._buffer.close()
            self.over.set()
        return await self._loan.__aexit__(kind, error, trace)

    async def _see_it_end(self, plan: RunPlan) -> None:
        """Give the run up some time after its deadline, if it has not ended."""
        with until(plan.given_up_at):
            await self.over.wait()
        if not self.over.is_set():
            self._asks.close()
            self._on_reply(AskResult(None, error=plan.unheard_of()))

    def _on_reply(self, reply: AskResult[None, OrchestrationResult]) -> None:
        if reply.error is not None:
            error = self._lifespan.explain(reply.error)
            self.reply = AskResult(None, error=error)
            self._buffer.end(RunFailed, error=type(error).__name__, message=str(error))
        else:
            self.reply = reply
            self._buffer.end(RunCompleted, result=reply.value)
        self.over.set()


class RunStream:
    """One run and its events: ``async with orchestrator.stream_responses(...) as run: ...``.

    Iterate over it for the events; `result` gives what the run came to, read or not. The last event is
    a `RunCompleted` or a `RunFailed`, exactly one. A slow reader slows nobody and loses no text: chunks
    of one model that wait are joined. Leaving the block cancels what is not finished; whoever still
    iterates or waits for the result then is told by a `BadCall`.
    """

    def __init__(self, run_id: str, lifespan: Lifespan, make_plan: PlanMaker) -> None:
        self.run_id = run_id
        self._place = lifespan.place
        self._run = _LiveRun(run_id, lifespan, make_plan)
        self._block: AbstractAsyncContextManager[EventBuffer, bool | None] | None = None
        self._buffer: EventBuffer | None = None

    async def __aenter__(self) -> Self:
        if self._block is not None:
            raise BadCall("a run can be streamed only once; call stream_responses again")
        self._block = self._place.block(self._run)
        self._buffer = await self._block.__aenter__()
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
        event = await self._opened().next()
        if event is not None:
            return event
        if self._run.reply is None:
            raise _left()
        raise StopAsyncIteration

    async def result(self) -> OrchestrationResult:
        """Wait for the end of the run and return its result; the events may be read or not.

        Cancellation leaves the run as it is. Raises what `process_responses` raises.
        """
        self._opened()
        await self._place.run(self._run.over.wait)
        reply = self._run.reply
        if reply is None:
            raise _left()
        if reply.value is None:
            raise reply.error or _left()
        return reply.value

    def _opened(self) -> EventBuffer:
        if self._buffer is None:
            raise BadCall("the run has not begun: use 'async with orchestrator.stream_responses(...) as run'")
        return self._buffer


def _left() -> BadCall:
    return BadCall("the run's block was left before the run had ended, so there is no result")
