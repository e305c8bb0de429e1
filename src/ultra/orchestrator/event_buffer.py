"""The events of a run that wait for their reader: waiting chunks are joined, and nothing said is lost."""

from __future__ import annotations

import threading
from collections import deque
from functools import partial
from io import StringIO
from typing import TYPE_CHECKING, Any, Final

import trio
from msgspec.structs import replace
from outcome import Error, capture
from trio.lowlevel import (
    Abort,
    cancel_shielded_checkpoint,
    checkpoint,
    checkpoint_if_cancelled,
    current_task,
    enable_ki_protection,
    reschedule,
    wait_task_rescheduled,
)

from ultra._support.async_library import in_trio
from ultra.durable.told import Told
from ultra.errors import BadCall
from ultra.messages.chat import ReasoningPart
from ultra.messages.events import (
    Chunk,
    ModelFailed,
    ModelResponded,
    ModelRetrying,
    ModelStarted,
    ReasoningChunk,
    RunCompleted,
    RunFailed,
    call_of,
)
from ultra.messages.reasoning import ends_block
from ultra.messages.reasoning_chunks import WaitingReasoning

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from trio.lowlevel import RaiseCancelT, Task

    from ultra.messages.events import CallKey, Event

__all__ = ["EventBuffer", "NoReader"]


class _Unread:
    """An unread event, and the time when it happened [s]."""

    __slots__ = ("event", "time")

    def __init__(self, event: Event, time: float) -> None:
        self.event = event
        self.time = time

    def read(self) -> Event:
        return self.event


class _UnreadChunk(_Unread):
    """An unread chunk, to which more text may be joined."""

    __slots__ = ("_more", "chunk")

    def __init__(self, chunk: Chunk, time: float) -> None:
        super().__init__(chunk, time)
        self.chunk = chunk
        self._more: StringIO | None = None  # a list of pieces would take many times the memory

    def join(self, text: str) -> None:
        if self._more is None:
            self._more = StringIO()
        self._more.write(text)

    def restart(self, chunk: Chunk) -> None:
        """Replace the text by that of another chunk, which is a restart."""
        self.chunk, self._more = chunk, None

    def read(self) -> Event:
        return (
            self.chunk
            if self._more is None
            else replace(self.chunk, text=self.chunk.text + self._more.getvalue())
        )


class _UnreadReasoning(_Unread):
    """An unread chunk of reasoning, to which more of its block may be joined."""

    __slots__ = ("waiting",)

    def __init__(self, chunk: ReasoningChunk, time: float) -> None:
        super().__init__(chunk, time)
        self.waiting = WaitingReasoning(chunk)

    def read(self) -> Event:
        return self.waiting.event()


class _Follower:
    """A task that waits while each event of a run is handed to its function."""

    __slots__ = ("_buffer", "_is_taking", "_raise_cancel", "_take", "_task")

    def __init__(self, buffer: EventBuffer, take: Callable[[Event], None], task: Task) -> None:
        self._buffer = buffer
        self._take = take
        self._task = task
        self._is_taking = False
        self._raise_cancel: RaiseCancelT | None = None  # it was cancelled by what it takes

    def hand_on(self) -> None:
        """Hand over what has come, and wake the task, once, if nothing follows."""
        self._is_taking = True
        run = self._task.context.run
        try:
            while self._raise_cancel is None and (event := self._buffer.read_ready()) is not None:
                run(self._take, event)
        except BaseException as error:  # noqa: BLE001 - it is the reader's, and not of the actor that writes
            reschedule(self._task, Error(error))
            return
        self._is_taking = False
        if self._raise_cancel is not None:
            reschedule(self._task, capture(self._raise_cancel))
        elif not self._buffer.follow_again(self):
            reschedule(self._task)

    def stop(self, raise_cancel: RaiseCancelT) -> Abort:
        """Follow no longer, since the task was cancelled."""
        if self._is_taking:  # what it takes cancels it: it is woken behind that
            self._raise_cancel = raise_cancel
            return Abort.FAILED
        return self._buffer.stop_reading(raise_cancel)


_NONE_UNREAD: Final[deque[_Unread]] = deque()
"""Of buffers whose events were all read. Even an empty deque takes 760 bytes, and many runs wait at once."""


def _no_reader_waits() -> None:
    """Do nothing: the function that wakes the reader, while none waits."""


class EventBuffer:
    """The events of one run, written by the actors and read by one task, on trio or on asyncio.

    Writing never blocks. A chunk that comes while another chunk of the same answer waits is joined to it,
    and a restart replaces it; reasoning is joined to reasoning, block by block. So the memory depends on the
    text and not on the number of chunks. Events are numbered when they are read. ::

        buffer = EventBuffer(run_id)
        buffer.emit(Chunk(stage="initial", model_name="llama", text="Par"))
        event = await buffer.next()

    Args:
        run_id: written into each event.
        now: returns the time [s]; the first call gives the beginning of the run.
        told: what readers of the run know already, of an earlier execution.
        listens: whether the reader wants chunks; without them, models are asked for whole answers.
    """

    def __init__(
        self,
        run_id: str,
        now: Callable[[], float] = trio.current_time,
        told: Told | None = None,
        *,
        listens: bool = True,
    ) -> None:
        self.listens = listens
        self._run_id = run_id
        self._now = now
        self._started = now() - (0.0 if told is None else told.time)
        self._seq = 0 if told is None else told.events
        self._told = told or Told()
        self._lock = threading.Lock()  # a reader on asyncio is in another thread than the actors
        self._events: deque[_Unread] = _NONE_UNREAD
        self._open: dict[CallKey, _UnreadChunk] = {}  # the newest unread chunk of each answer
        self._begun: dict[CallKey, None] = dict.fromkeys(self._told.texts)  # answers that had text already
        self._open_thoughts: dict[CallKey, _UnreadReasoning] = {}  # likewise, of their reasoning
        self._thought: dict[CallKey, None] = dict.fromkeys(self._told.thoughts)
        self._stale: dict[CallKey, None] = {}  # asked for again, and their reasoning has not come again
        self._reading = False
        self._wake_reader: Callable[[], None] = _no_reader_waits
        self._ended = False

    @property
    def has_unread(self) -> bool:
        """Whether there are events that were not read yet."""
        return bool(self._events)

    # --- written by the actors -------------------------------------------------------------------------

    def emit(self, event: Event) -> None:
        """Add one event; after the last event of the run, do nothing.

        Here, `restart` marks a chunk that begins a text. It stays a restart if there was text before it.
        """
        with self._lock:
            if self._ended:
                return
            if isinstance(event, Chunk):
                if self._is_told(event):
                    self._stale.pop(call_of(event), None)
                    return
                self._add_chunk(event)
            elif isinstance(event, ReasoningChunk):
                self._add_reasoning(event)
            else:
                self._add(event)
            # Under the lock, so that a reader that begins to wait now is woken, too.
            wake, self._wake_reader = self._wake_reader, _no_reader_waits
        wake()

    def close(self) -> None:
        """Drop the unread events, since no reader is left, and wake a reader that waits."""
        with self._lock:
            self._ended = True
            self._events = _NONE_UNREAD
            self._open.clear()
            self._open_thoughts.clear()
            wake, self._wake_reader = self._wake_reader, _no_reader_waits
        wake()

    def _is_told(self, chunk: Chunk) -> bool:
        """Return whether the reader has this text from an earlier execution of the run."""
        told = self._told
        return bool(told.texts) and told.has_told(call_of(chunk), chunk.text) and chunk.restart

    def _add(self, event: Event) -> None:
        if isinstance(event, (RunCompleted, RunFailed)):
            self._ended = True
        elif isinstance(event, (ModelStarted, ModelResponded, ModelFailed, ModelRetrying)):
            self._begin_or_end(event)
        self._append(_Unread(event, self._now() - self._started))

    def _begin_or_end(self, event: ModelStarted | ModelResponded | ModelFailed | ModelRetrying) -> None:
        name = call_of(event)
        if self._told.texts and isinstance(event, (ModelRetrying, ModelFailed)):
            self._told.texts.pop(name, None)  # it is void now
        if isinstance(event, ModelRetrying):
            self._drop_unread(name)
        elif not isinstance(event, ModelStarted):
            self._open.pop(name, None)
            self._open_thoughts.pop(name, None)
        elif name in self._thought:
            self._stale[name] = None

    def _add_chunk(self, chunk: Chunk) -> None:
        key = call_of(chunk)
        restart = chunk.restart and key in self._begun
        if key in self._stale:
            self._add_reasoning(_void_reasoning(chunk))
        waiting = self._open.get(key)
        if waiting is not None and not restart:
            waiting.join(chunk.text)
            return
        if chunk.restart != restart:
            chunk = replace(chunk, restart=restart)
        if waiting is not None:
            waiting.restart(chunk)
            return
        waiting = self._open[key] = _UnreadChunk(chunk, self._now() - self._started)
        self._begun[key] = None
        self._append(waiting)

    def _add_reasoning(self, chunk: ReasoningChunk) -> None:
        key = call_of(chunk)
        restart = chunk.restart and key in self._thought
        self._stale.pop(key, None)
        if chunk.restart != restart:
            chunk = replace(chunk, restart=restart)
        waiting = self._open_thoughts.get(key)
        if not (restart or chunk.text or ends_block(chunk.part)):
            return
        if waiting is not None and waiting.waiting.joins(chunk):
            return
        if waiting is not None and restart:
            waiting.waiting = WaitingReasoning(chunk)
            return
        self._open_thoughts[key] = waiting = _UnreadReasoning(chunk, self._now() - self._started)
        self._thought[key] = None
        self._append(waiting)

    def _append(self, unread: _Unread) -> None:
        if self._events is _NONE_UNREAD:
            self._events = deque()
        self._events.append(unread)

    def _drop_unread(self, key: CallKey) -> None:
        """Drop what was not read of a failed attempt; what follows is a restart."""
        for unread in (self._open.pop(key, None), self._open_thoughts.pop(key, None)):
            if unread is not None:
                self._events.remove(unread)

    # --- read by one task ------------------------------------------------------------------------------

    # Protected: a KeyboardInterrupt between the two lines that park would leave a task that nobody may wake.
    @enable_ki_protection
    async def next(self) -> Event | None:
        """Wait for the next event, and return it; None after the last. Cancelling this takes no event."""
        self._begin_reading()
        try:
            if not in_trio():
                await self._arrival_on_asyncio()
            elif self._events or self._ended:
                await checkpoint()
            else:
                self._wake_reader = partial(reschedule, current_task())
                await wait_task_rescheduled(self.stop_reading)
        finally:
            self._reading = False
        return self.read_ready()

    def ready(self) -> list[Event]:
        """Return the events that need not be waited for, which are then read."""
        with self._lock:
            return [self._read() for _ in range(len(self._events))]

    def for_each(self, take: Callable[[Event], None]) -> Coroutine[Any, Any, None]:
        """Return what calls `take` with each event, until the last one was taken or the buffer is closed.

        On trio it is called where the event happens, with the context variables of this task, so that no task
        wakes up for each event only to read it. What it raises ends the following, and is raised here. If it
        cancels the following, that ends behind this event. Cancelling this takes no event.
        """
        return self._hand_all(take) if in_trio() else self._read_all(take)

    async def _read_all(self, take: Callable[[Event], None]) -> None:
        while (event := await self.next()) is not None:
            take(event)
            for _ in range(len(self._events)):  # and not those that come meanwhile: others have their turn
                if (event := self.read_ready()) is not None:
                    take(event)

    @enable_ki_protection
    async def _hand_all(self, take: Callable[[Event], None]) -> None:
        self._begin_reading()
        try:
            await checkpoint_if_cancelled()
            while (event := self.read_ready()) is not None:
                take(event)
                await checkpoint_if_cancelled()
            if self._ended:
                await cancel_shielded_checkpoint()
                return
            follower = _Follower(self, take, current_task())
            self._wake_reader = follower.hand_on
            await wait_task_rescheduled(follower.stop)
        finally:
            self._reading = False

    def follow_again(self, follower: _Follower) -> bool:
        """Let the follower take what comes next; return False if nothing follows."""
        if not self._ended:
            self._wake_reader = follower.hand_on
        return not self._ended

    def read_ready(self) -> Event | None:
        """Return the next event that need not be waited for."""
        with self._lock:
            return self._read() if self._events else None

    def _begin_reading(self) -> None:
        if self._reading:
            raise BadCall("another task is reading this run; open one stream for each reader")
        self._reading = True

    async def _arrival_on_asyncio(self) -> None:
        import asyncio  # noqa: PLC0415 - this program uses it

        from ultra.bridge.asyncio_loop import ThreadsafeEvent  # noqa: PLC0415 - imports asyncio

        with self._lock:
            event = None if self._events or self._ended else ThreadsafeEvent()
            if event is not None:
                self._wake_reader = event.set
        if event is None:
            await asyncio.sleep(0)  # the writers are in another thread, and may be faster for long
            return
        await event.wait()

    def stop_reading(self, _raise_cancel: object) -> Abort:
        """Wake nobody any more; the abort function of the task that waits."""
        self._wake_reader = _no_reader_waits
        return Abort.SUCCEEDED

    def _read(self) -> Event:
        unread = self._events.popleft()
        if not self._events:
            self._events = _NONE_UNREAD
        if isinstance(unread, _UnreadChunk):
            self._open.pop(call_of(unread.chunk), None)
        elif isinstance(unread, _UnreadReasoning):
            key = call_of(unread.waiting.first)
            if self._open_thoughts.get(key) is unread:
                del self._open_thoughts[key]
        self._seq += 1
        return replace(unread.read(), run_id=self._run_id, seq=self._seq - 1, time=unread.time)


class NoReader:
    """The sink of a run without a reader."""

    listens = False

    def __init__(self, _run_id: str) -> None:
        pass

    def emit(self, event: Event) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def _void_reasoning(chunk: Chunk) -> ReasoningChunk:
    """Return what tells that the reasoning ahead of a text is void."""
    return ReasoningChunk(
        stage=chunk.stage,
        round=chunk.round,
        model_name=chunk.model_name,
        sample=chunk.sample,
        part=ReasoningPart(),
        restart=True,
    )
