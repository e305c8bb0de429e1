"""One call of a client in another process."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from itertools import count
from math import inf
from typing import TYPE_CHECKING, Any, Final

import trio

from ultra._support.log import get_logger
from ultra.cluster.ray.errors_between import unpacked
from ultra.cluster.ray.frames import Answered, Call, Failed, Read, decode_news, encode
from ultra.errors import ClientCrashed, ModelError
from ultra.messages.reasoning import ReasoningDelta

if TYPE_CHECKING:
    from concurrent.futures import Future

    from ultra.cluster.ray.frames import End
    from ultra.cluster.ray.process import ModelProcess
    from ultra.messages.request import ModelRequest
    from ultra.messages.results import Completion, Usage

__all__ = ["RemoteCall"]

log = get_logger("ultra.cluster")

CANCEL_TIMEOUT: Final = 5.0
"""Seconds that a call may take to end after it was cancelled, until it is waited for no longer."""

_CALLS: Final = count(1)


class RemoteCall:
    """A call of a client in `process`: an iterator over its text, and its `Completion` last.

    It begins when it is first read; it must be closed.

    Attributes:
        usage: the tokens that were counted so far.
    """

    def __init__(self, process: ModelProcess, request: ModelRequest, *, streams: bool) -> None:
        self.usage: Usage | None = None
        self._process = process
        self._request = request
        self._streams = streams
        self._id = next(_CALLS)
        self._beginning: Future[Any] | None = None
        self._is_open = False
        self._end: End | None = None
        self._pieces: deque[str] = deque()

    def __aiter__(self) -> RemoteCall:
        return self

    async def __anext__(self) -> str | Completion:
        """Return the next text, which is empty for a sign of life without text, or for reasoning.

        Raises:
            ModelError: the call failed.
            ClientCrashed: the process has broken down.
        """
        while not self._pieces and self._end is None and (self._is_open or self._beginning is None):
            try:
                news = decode_news(await self._read())
            except ClientCrashed:
                self._process.heard()
                raise
            self.usage = news.usage or self.usage
            if news.end is not None:
                self._end = news.end
                self._leave()
            self._pieces += map(ReasoningDelta.of, news.reasoning)
            if news.text or (news.alive and not news.reasoning):
                self._pieces.append(news.text)
        if self._pieces:
            return self._pieces.popleft()
        end, self._end = self._end, None
        if end is None:
            raise StopAsyncIteration
        if isinstance(end, Answered):
            return end.completion
        if isinstance(end, Failed):
            raise unpacked(end.error)
        raise ModelError("the time of the call was over", kind="timeout")

    async def completion(self) -> Completion:
        """Read the call to its end, close it, and return the whole answer."""
        try:
            async for piece in self:
                if not isinstance(piece, str):
                    return piece
        finally:
            await self.aclose()
        raise ModelError("the call ended without an answer", kind="protocol")

    async def aclose(self) -> None:
        """Cancel the call if it goes on, and wait until the client's work has ended.

        This is not cancelled. After 5 seconds it is waited for no longer, and a warning is logged.
        """
        if not self._is_open:
            return
        end = trio.current_time() + CANCEL_TIMEOUT
        with (
            trio.CancelScope(shield=True, deadline=end) as scope,
            suppress(ClientCrashed, ModelError),  # then the work has ended, too
        ):
            if self._beginning is not None:
                await self._process.result(self._beginning)  # what has not begun cannot be cancelled
            await self._process.ask("cancel", self._id)
        if scope.cancelled_caught:
            log.warning("a call does not end although it was cancelled", waited=CANCEL_TIMEOUT)
            with suppress(ClientCrashed):
                self._process.start_method("cancel", self._id)
        self._leave()

    async def _read(self) -> bytes:
        if self._beginning is None:
            call = Call(id=self._id, request=self._request, streams=self._streams, time_left=_time_left())
            self._beginning = self._process.start_method("begin", encode(call))
            self._is_open = True
            self._process.enter()
            await self._process.result(self._beginning)
        data: bytes = await self._process.ask("read", encode(Read(id=self._id, time_left=_time_left())))
        return data

    def _leave(self) -> None:
        self._is_open = False
        self._process.leave()


def _time_left() -> float | None:
    left = trio.current_effective_deadline() - trio.current_time()
    return None if left == inf else max(0.0, left)
