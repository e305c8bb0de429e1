"""Reading a run while it goes on: a buffer that merges what waits, and the block around it."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Protocol, Self

import trio
from trio.lowlevel import Abort, checkpoint, current_task, reschedule, wait_task_rescheduled

from ultra.actors.coordinator import Execute
from ultra.actors.group import AskGroup, Reply
from ultra.errors import BadCall
from ultra.events import Chunk, Event, RunCompleted, RunFailed

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from trio.lowlevel import Task

    from ultra.actors.run import EventSink, RunPlan
    from ultra.messages import OrchestrationResult
    from ultra.tree import ModelTree

__all__ = ["EventBuffer", "PlanMaker", "RunStream"]


class PlanMaker(Protocol):
    """Makes the plan of a run that was checked, now that there are actors to carry it out."""

    def __call__(self, tree: ModelTree, run_id: str, sink: EventSink | None) -> RunPlan:
        """The plan, for actors of `tree`; events go to `sink`."""
        ...


class _Waiting:
    """An event that nobody has read. The texts of chunks are joined when somebody does."""

    __slots__ = ("event", "fields", "text", "time")

    def __init__(self, event: type[Event], fields: dict[str, Any], time: float) -> None:
        self.event = event
        self.fields = fields
        self.time = time
        self.text: list[str] | None = None


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
        self._chunks: dict[tuple[str, str], _Waiting] = {}
        self._reader: Task | None = None
        self._ended = False

    def emit(self, event: type[Event], **fields: Any) -> None:  # noqa: ANN401 - the fields of any event
        """Add one event."""
        now = trio.current_time() - self._started
        if event is Chunk:
            self._add_chunk(fields, now)
        else:
            if "model_name" in fields:
                self._chunks.pop((fields["stage"], fields["model_name"]), None)
            self._events.append(_Waiting(event, fields, now))
        self._wake()

    def end(self, event: type[Event], **fields: Any) -> None:  # noqa: ANN401 - as above
        """Add the last event; what comes later is dropped."""
        if not self._ended:
            self.emit(event, **fields)
            self._ended = True

    async def next(self) -> Event | None:
        """Wait for the next event; None after the last. Always a checkpoint; cancelled, it took none."""
        if self._reader is not None:
            raise BadCall("another task is reading this run; open one stream for each reader")
        if self._events:
            await checkpoint()
        while not self._events:
            if self._ended:
                await checkpoint()
                return None
            self._reader = current_task()
            await wait_task_rescheduled(self._stop_reading)
        return self._read()

    def _add_chunk(self, fields: dict[str, Any], now: float) -> None:
        key = (fields["stage"], fields["model_name"])
        waiting = self._chunks.get(key)
        if waiting is None or waiting.text is None:
            waiting = self._chunks[key] = _Waiting(Chunk, fields, now)
            waiting.text = [fields["text"]]
            self._events.append(waiting)
        elif fields["restart"]:
            waiting.text = [fields["text"]]
            waiting.fields["restart"] = True
        else:
            waiting.text.append(fields["text"])

    def _read(self) -> Event:
        waiting = self._events.popleft()
        fields = waiting.fields
        if waiting.text is not None:
            fields["text"] = "".join(waiting.text)
            self._chunks.pop((fields["stage"], fields["model_name"]), None)
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
    of one model that wait are joined. Leaving the block cancels what is not finished.
    """

    def __init__(
        self,
        run_id: str,
        tree: AbstractAsyncContextManager[ModelTree],
        make_plan: PlanMaker,
    ) -> None:
        self.run_id = run_id
        self._tree = tree
        self._make_plan = make_plan
        self._asks: AskGroup[None, OrchestrationResult] = AskGroup(self._on_reply)
        self._buffer: EventBuffer | None = None
        self._reply: Reply[None, OrchestrationResult] | None = None
        self._finished = trio.Event()

    async def __aenter__(self) -> Self:
        if self._buffer is not None:
            raise BadCall("a run can be streamed only once; call stream_responses again")
        tree = await self._tree.__aenter__()
        self._buffer = EventBuffer(self.run_id)
        self._asks.ask(tree.coordinator, Execute(self._make_plan(tree, self.run_id, self._buffer)), None)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        self._asks.close()
        return await self._tree.__aexit__(kind, error, trace)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        event = await self._open_buffer().next()
        if event is None:
            raise StopAsyncIteration
        return event

    async def result(self) -> OrchestrationResult:
        """Wait for the end of the run and return its result; the events may be read or not.

        Raises what `process_responses` raises.
        """
        self._open_buffer()
        await self._finished.wait()
        if self._reply is None or self._reply.value is None:
            raise self._reply.error if self._reply is not None and self._reply.error else _left()
        return self._reply.value

    def _open_buffer(self) -> EventBuffer:
        if self._buffer is None:
            raise BadCall("the run has not begun: use 'async with orchestrator.stream_responses(...) as run'")
        return self._buffer

    def _on_reply(self, reply: Reply[None, OrchestrationResult]) -> None:
        self._reply = reply
        buffer = self._open_buffer()
        if reply.value is not None:
            buffer.end(RunCompleted, result=reply.value)
        else:
            buffer.end(RunFailed, error=type(reply.error).__name__, message=str(reply.error))
        self._finished.set()


def _left() -> BadCall:
    return BadCall("the run's block was left before the run had ended, so there is no result")
