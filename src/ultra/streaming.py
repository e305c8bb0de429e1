"""Reading a run while it goes on: a buffer that merges what waits, and the block around it."""

from __future__ import annotations

import sys
from collections import deque
from io import StringIO
from typing import TYPE_CHECKING, Any, Protocol, Self

import trio
from trio.lowlevel import Abort, checkpoint, current_task, reschedule, wait_task_rescheduled

from ultra.actors.coordinator import Execute
from ultra.actors.group import AskGroup, Reply
from ultra.errors import BadCall
from ultra.events import Chunk, Event, ModelFailed, ModelResponded, RunCompleted, RunFailed

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from trio.lowlevel import Task

    from ultra.actors.plan import EventSink, RunPlan
    from ultra.messages import OrchestrationResult
    from ultra.tree import ModelTree

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


class EventBuffer:
    """The events of one run between the actors and one reader.

    Writing never blocks. A chunk that comes while another of the same model waits is joined to it, so
    what waits is bounded by the text and not by the number of chunks; a restart replaces what waits.
    Events are numbered as they are read.
    """

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._started = trio.current_time()
        self._seq = 0
        self._events: deque[_Waiting] = deque()
        self._open: dict[tuple[str, str], _WaitingChunk] = {}  # to which more may be joined
        self._told: dict[tuple[str, str], None] = {}  # of whom there was text already
        self._reading = False
        self._reader: Task | None = None
        self._ended = False

    def emit(self, event: type[Event], **fields: Any) -> None:  # noqa: ANN401 - the fields of any event
        """Add one event; after the last one, do nothing."""
        if self._ended:
            return
        if event is ModelResponded or event is ModelFailed:
            self._open.pop((fields["stage"], fields["model_name"]), None)
        self._events.append(_Waiting(event, fields, trio.current_time() - self._started))
        self._wake()

    def chunk(self, stage: str, model_name: str, text: str, begins: bool) -> None:  # noqa: FBT001 - a callback
        """Add a piece of text. One that begins a text of which there was some already is a restart."""
        if self._ended:
            return
        key = stage, model_name
        restart = begins and key in self._told
        waiting = self._open.get(key)
        if waiting is None:
            time = trio.current_time() - self._started
            waiting = self._open[key] = _WaitingChunk(key, text, restart=restart, time=time)
            self._told[key] = None
            self._events.append(waiting)
            self._wake()
        elif restart:
            waiting.begin_anew(text)
        else:
            waiting.join(text)

    def end(self, event: type[Event], **fields: Any) -> None:  # noqa: ANN401 - as above
        """Add the last event."""
        self.emit(event, **fields)
        self._ended = True

    def close(self) -> None:
        """There will be no reader any more: forget what waits, and let a reader that waits go."""
        self._ended = True
        self._events.clear()
        self._open.clear()
        self._wake()

    async def next(self) -> Event | None:
        """Wait for the next event; None after the last. Always a checkpoint; cancelled, it took none."""
        if self._reading:
            raise BadCall("another task is reading this run; open one stream for each reader")
        self._reading = True
        try:
            if self._events or self._ended:
                await checkpoint()
            else:
                self._reader = current_task()
                await wait_task_rescheduled(self._stop_reading)
        finally:
            self._reading = False
        return self._read() if self._events else None

    def _read(self) -> Event:
        waiting = self._events.popleft()
        fields = waiting.fields
        if isinstance(waiting, _WaitingChunk):
            self._open.pop((fields["stage"], fields["model_name"]), None)
            text = waiting.text
            fields["text"] = text if isinstance(text, str) else text.getvalue()
        self._seq += 1
        return waiting.event(run_id=self._run_id, seq=self._seq - 1, time=waiting.time, **fields)

    def _wake(self) -> None:
        if self._reader is not None:
            task, self._reader = self._reader, None
            reschedule(task)

    def _stop_reading(self, _raise_cancel: object) -> Abort:
        self._reader = None
        return Abort.SUCCEEDED


class RunStream:
    """One run and its events: ``async with orchestrator.stream_responses(...) as run: ...``.

    Iterate over it for the events; `result` gives what the run came to, read or not. The last event is
    a `RunCompleted` or a `RunFailed`, exactly one. A slow reader slows nobody and loses no text: chunks
    of one model that wait are joined. Leaving the block cancels what is not finished; whoever still
    iterates or waits for the result then is told by a `BadCall`.
    """

    def __init__(
        self,
        run_id: str,
        running: Callable[[], AbstractAsyncContextManager[ModelTree]],
        make_plan: PlanMaker,
    ) -> None:
        self.run_id = run_id
        self._running = running
        self._make_plan = make_plan
        self._tree: AbstractAsyncContextManager[ModelTree] | None = None
        self._asks: AskGroup[None, OrchestrationResult] = AskGroup(self._on_reply)
        self._buffer: EventBuffer | None = None
        self._reply: Reply[None, OrchestrationResult] | None = None
        self._finished = trio.Event()

    async def __aenter__(self) -> Self:
        if self._tree is not None:
            raise BadCall("a run can be streamed only once; call stream_responses again")
        self._tree = self._running()
        tree = await self._tree.__aenter__()
        try:
            self._buffer = EventBuffer(self.run_id)
            plan = self._make_plan(tree, self.run_id, self._buffer)
            self._asks.ask(tree.coordinator, Execute(plan), None)
        except BaseException:
            await self._tree.__aexit__(*sys.exc_info())
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        self._asks.close()
        if self._reply is None:
            self._opened().close()
            self._finished.set()
        return await self._tree.__aexit__(kind, error, trace) if self._tree is not None else None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        event = await self._opened().next()
        if event is not None:
            return event
        if self._reply is None:
            raise _left()
        raise StopAsyncIteration

    async def result(self) -> OrchestrationResult:
        """Wait for the end of the run and return its result; the events may be read or not.

        Cancellation leaves the run as it is. Raises what `process_responses` raises.
        """
        self._opened()
        await self._finished.wait()
        if self._reply is None:
            raise _left()
        if self._reply.value is None:
            raise self._reply.error or _left()
        return self._reply.value

    def _opened(self) -> EventBuffer:
        if self._buffer is None:
            raise BadCall("the run has not begun: use 'async with orchestrator.stream_responses(...) as run'")
        return self._buffer

    def _on_reply(self, reply: Reply[None, OrchestrationResult]) -> None:
        self._reply = reply
        if reply.value is not None:
            self._opened().end(RunCompleted, result=reply.value)
        else:
            self._opened().end(RunFailed, error=type(reply.error).__name__, message=str(reply.error))
        self._finished.set()


def _left() -> BadCall:
    return BadCall("the run's block was left before the run had ended, so there is no result")
