"""The process of a placed model, from the inside: a Ray actor that holds the client, and makes its calls.

Ray's actor is on asyncio. The client is called as everywhere, by a `ClientAdapter` in a trio run, which is a
thread here; an asyncio client runs on the loop of the actor. All that is kept of a call belongs to that loop.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final

from ray import cloudpickle

from ultra.bridge.asyncio_loop import AsyncioLoop
from ultra.bridge.caller import trio_runner
from ultra.bridge.portal import TrioThread
from ultra.clients.adapter import ClientAdapter
from ultra.clients.classify import classify
from ultra.cluster.ray.errors_between import packed
from ultra.cluster.ray.frames import (
    Answered,
    Cancelled,
    Failed,
    News,
    decode_call,
    decode_read,
    encode,
)
from ultra.errors import ModelError
from ultra.messages.reasoning import JoinedReasoning, ReasoningDelta

if TYPE_CHECKING:
    from collections.abc import Callable

    from ultra.cluster.ray.frames import Call, End
    from ultra.messages.results import Completion, Usage

__all__ = ["DEADLINE_ALLOWANCE", "MOST_UNREAD", "ModelHost"]

MOST_UNREAD: Final = 2**24
"""Characters of one answer that may wait to be read; a call that has written more fails."""

DEADLINE_ALLOWANCE: Final = 1.0
"""Seconds after its deadline for which a call waits to be cancelled by the one who asks, and who says why."""


class ModelHost:
    """Holds one client, and makes its calls. Ray runs each method as a task of one asyncio loop.

    Args:
        made: pickled, a function that makes the client.
    """

    def __init__(self, made: bytes) -> None:
        self._made = made
        self._settled = asyncio.Event()
        self._failure = b""
        self._stopping = asyncio.Event()
        self._calls: dict[int, _HostedCall] = {}
        self._adapter: ClientAdapter
        self._tasks: asyncio.TaskGroup
        self._thread = TrioThread("ultra")

    async def run(self) -> None:
        """Make the client, and hold it until `stop`. While this goes on, the process lives."""
        self._thread.start()
        try:
            try:
                client = cloudpickle.loads(self._made)()
                runner = trio_runner if getattr(client, "async_library", None) == "trio" else None
                self._adapter = ClientAdapter(client, owned=True, runner=runner or AsyncioLoop.running())
            except Exception as error:  # noqa: BLE001 - told by `ready`
                self._failure = packed(classify(error))
            self._made = b""
            self._settled.set()
            async with asyncio.TaskGroup() as self._tasks:
                await self._stopping.wait()
                for call in self._calls.values():
                    call.cancel()
            if not self._failure:
                await self._thread.run(self._adapter.aclose)
        finally:
            await self._thread.stop()

    async def ready(self) -> bytes:
        """Wait until the client is made; return the packed error if it cannot be, else nothing."""
        await self._settled.wait()
        return self._failure

    async def begin(self, frame: bytes) -> None:
        """Begin a call (`frames.Call`). Returns at once, so that it can be cancelled from then on."""
        call = _HostedCall(decode_call(frame), self._thread, self._adapter)
        self._calls[call.id] = call
        call.task = self._tasks.create_task(call.run())

    async def read(self, frame: bytes) -> bytes:
        """Wait for news of a call (`frames.Read`), and return them (`frames.News`)."""
        wanted = decode_read(frame)
        call = self._calls.get(wanted.id)
        if call is None:  # it was cancelled meanwhile
            return encode(News(end=Cancelled()))
        call.renew(wanted.time_left)
        news = await call.news()
        if news.end is not None:
            self._calls.pop(wanted.id, None)
        return encode(news)

    async def cancel(self, number: int) -> None:
        """Cancel a call, if it goes on, and wait until its work has ended."""
        call = self._calls.pop(number, None)
        if call is not None and call.task is not None:
            call.cancel()
            await asyncio.wait([call.task])

    async def stop(self) -> None:
        """Let `run` return, after it has cancelled all calls and closed the client."""
        self._stopping.set()


class _HostedCall:
    """One call: what was written and not read yet, and how it ended. Belongs to the asyncio loop."""

    def __init__(self, call: Call, thread: TrioThread, adapter: ClientAdapter) -> None:
        self.id = call.id
        self.task: asyncio.Task[None] | None = None
        self._call = call
        self._thread = thread
        self._adapter = adapter
        self._loop = AsyncioLoop.running()
        self._text: list[str] = []
        self._reasoning = JoinedReasoning()
        self._unread = 0
        self._alive = False
        self._usage: Usage | None = None
        self._end: End | None = None
        self._changed = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._refusal: ModelError | None = None
        self.renew(call.time_left)

    def renew(self, time_left: float | None) -> None:
        """Cancel the call a second after its time is over, if nobody has by then; None: never."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if time_left is not None:
            self._timer = asyncio.get_running_loop().call_later(time_left + DEADLINE_ALLOWANCE, self.cancel)

    def cancel(self) -> None:
        """Cancel the client's work; the task ends when that has ended."""
        if self.task is not None:
            self.task.cancel()

    async def news(self) -> News:
        """Wait for news, and return them."""
        await self._changed.wait()
        self._changed.clear()
        news = News(
            reasoning=tuple(self._reasoning.parts()),
            text="".join(self._text),
            alive=self._alive,
            usage=self._usage,
            end=self._end,
        )
        self._text.clear()
        self._reasoning = JoinedReasoning()
        self._unread, self._alive, self._usage = 0, False, None
        return news

    async def run(self) -> None:
        """Make the call. Raises nothing."""
        try:
            self._end = Answered(await self._thread.run(self._ask))
        except ModelError as error:
            self._end = Failed(packed(error))
        except asyncio.CancelledError:
            self._end = Cancelled() if self._refusal is None else Failed(packed(self._refusal))
        except Exception as error:  # noqa: BLE001 - goes to the one who asks; the other calls go on
            self._end = Failed(packed(classify(error)))
        finally:
            self.renew(None)
            self._changed.set()

    def _hear(self, text: str) -> None:
        if self._refusal is not None:
            return
        if text:
            self._text.append(text)
            self._unread += len(text)
        elif isinstance(text, ReasoningDelta):
            self._reasoning.add(text.part)
            self._unread += len(text.part.text)
        else:
            self._alive = True
        self._changed.set()
        if self._unread > MOST_UNREAD:
            said = f"{self._unread:,} characters of the answer wait to be read; at most {MOST_UNREAD:,} may"
            self._refusal = ModelError(said, kind="protocol", retryable=False)
            self._text.clear()
            self._reasoning = JoinedReasoning()
            self.cancel()

    def _see(self, usage: Usage) -> None:
        self._usage = usage
        self._changed.set()

    # --- in trio's thread ----------------------------------------------------------------------------

    async def _ask(self) -> Completion:
        return await self._adapter.call(
            self._call.request,
            on_text=self._posting(self._hear) if self._call.streams else None,
            on_usage=self._posting(self._see),
        )

    def _posting(self, function: Callable[..., None]) -> Callable[..., None]:
        return partial(self._loop.post, function)
