"""The events of a run on their way to one reader: what waits is merged, and nothing is lost."""

from __future__ import annotations

import threading
from collections import deque
from functools import partial
from io import StringIO
from typing import TYPE_CHECKING, TypeAlias

import trio
from msgspec.structs import replace
from trio.lowlevel import (
    Abort,
    checkpoint,
    current_task,
    enable_ki_protection,
    in_trio_run,
    reschedule,
    wait_task_rescheduled,
)

from ultra.errors import BadCall
from ultra.messages.events import (
    Chunk,
    ModelFailed,
    ModelResponded,
    ModelRetrying,
    RunCompleted,
    RunFailed,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from ultra.messages.events import Event

__all__ = ["EventBuffer", "NoReader"]


class _Unread:
    """An event that nobody has read, and when it happened."""

    __slots__ = ("event", "time")

    def __init__(self, event: Event, time: float) -> None:
        self.event = event
        self.time = time

    def read(self) -> Event:
        return self.event


class _UnreadChunk(_Unread):
    """A chunk that nobody has read, and to which more text may be joined."""

    __slots__ = ("_more", "chunk")

    def __init__(self, chunk: Chunk, time: float) -> None:
        super().__init__(chunk, time)
        self.chunk = chunk
        self._more: StringIO | None = None  # one buffer: pieces of their own would take many times the room

    def join(self, text: str) -> None:
        if self._more is None:
            self._more = StringIO()
        self._more.write(text)

    def restart(self, chunk: Chunk) -> None:
        """Put another text in the place of this one; the reader may have read a part that came before."""
        self.chunk, self._more = chunk, None

    def read(self) -> Event:
        return (
            self.chunk
            if self._more is None
            else replace(self.chunk, text=self.chunk.text + self._more.getvalue())
        )


def _nobody() -> None:
    """Stands in for what wakes a reader, while none waits."""


class EventBuffer:
    """The events of one run between the actors and one reader, who may be on an asyncio loop.

    Writing never blocks. A chunk that comes while another of the same answer waits is joined to it, so
    what waits is bounded by the text and not by the number of chunks; a restart replaces what waits.
    Events are numbered as they are read.

    Args:
        run_id: written into each event.
        now: tells the time [s]; the first reading of it is the run's beginning.
    """

    listens = True

    def __init__(self, run_id: str, now: Callable[[], float] = trio.current_time) -> None:
        self._run_id = run_id
        self._now = now
        self._started = now()
        self._seq = 0
        self._lock = threading.Lock()  # a reader on asyncio is in another thread than the actors
        self._events: deque[_Unread] = deque()
        self._open: dict[_Key, _UnreadChunk] = {}  # to which more may be joined
        self._told: dict[_Key, None] = {}  # of which there was text already
        self._reading = False
        self._wake_reader: Callable[[], None] = _nobody
        self._ended = False

    # --- written by the actors -------------------------------------------------------------------------

    def emit(self, event: Event) -> None:
        """Add one event; after the last one, do nothing.

        A chunk with `restart` is one that begins a text; it is told as a restart if there was some already.
        """
        with self._lock:
            if self._ended:
                return
            self._ended = isinstance(event, (RunCompleted, RunFailed))
            if isinstance(event, Chunk):
                self._add_chunk(event)
            else:
                if isinstance(event, (ModelResponded, ModelFailed)):
                    self._open.pop(_key(event), None)
                elif isinstance(event, ModelRetrying):
                    self._forget_unread_text(_key(event))
                self._events.append(_Unread(event, self._now() - self._started))
            # With the lock, so that no reader that begins to wait now is missed.
            wake, self._wake_reader = self._wake_reader, _nobody
        wake()

    def close(self) -> None:
        """Forget what waits, since there is no reader any more, and let a reader that waits go."""
        with self._lock:
            self._ended = True
            self._events.clear()
            self._open.clear()
            wake, self._wake_reader = self._wake_reader, _nobody
        wake()

    def _add_chunk(self, chunk: Chunk) -> None:
        key = _key(chunk)
        restart = chunk.restart and key in self._told
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
        self._told[key] = None
        self._events.append(waiting)

    def _forget_unread_text(self, key: _Key) -> None:
        """What an attempt that failed has streamed counts for nothing; what follows it is a restart."""
        unread = self._open.pop(key, None)
        if unread is not None:
            self._events.remove(unread)

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
        from ultra.bridge.asyncio_loop import ThreadsafeEvent  # noqa: PLC0415 - imports asyncio

        with self._lock:
            if self._events or self._ended:
                return
            event = ThreadsafeEvent()
            self._wake_reader = event.set
        await event.wait()

    def _stop_reading(self, _raise_cancel: object) -> Abort:
        self._wake_reader = _nobody
        return Abort.SUCCEEDED

    def _read(self) -> Event:
        unread = self._events.popleft()
        if isinstance(unread, _UnreadChunk):
            self._open.pop(_key(unread.chunk), None)
        self._seq += 1
        return replace(unread.read(), run_id=self._run_id, seq=self._seq - 1, time=unread.time)


class NoReader:
    """The sink of a run whose events nobody reads."""

    listens = False

    def __init__(self, _run_id: str) -> None:
        pass

    def emit(self, event: Event) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


_Key: TypeAlias = "tuple[str, int, str, int]"


def _key(event: Chunk | ModelResponded | ModelFailed | ModelRetrying) -> _Key:
    """What tells the answers of one run apart."""
    return event.stage, event.round, event.model_name, event.sample
