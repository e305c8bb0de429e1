"""A streamed answer as an async iterator that owns its connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self

import trio

from ultra.clients.dialects.decoders import PIECES_AT_ONCE, PlainAnswer
from ultra.clients.dialects.usage import counted
from ultra.errors import ModelError
from ultra.messages.reasoning import ReasoningDelta

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from types import TracebackType

    from ultra.clients.dialects.decoders import AnswerDecoder
    from ultra.clients.http.body import ResponseBody
    from ultra.clients.http.connections import Connections
    from ultra.clients.http.wording import Wording
    from ultra.messages.results import Completion, Usage

__all__ = ["CompletionStream"]

# Once the answer is whole, the end of its body is waited for this long [s]: a connection that was
# read to the end can be used again.
_DRAIN_TIME: Final = 0.1


class CompletionStream:
    """Pieces of text as they arrive and, last, the whole `Completion`.

    An empty piece is a sign of life: the server sent something that is no text of the answer, such as a piece
    of a tool call, or a ping. A piece of the reasoning is a `ReasoningDelta`, which is empty, too.

    The connection is closed when the iteration ends, fails or is cancelled. Leave it early only inside
    ``async with stream:`` or by calling `aclose`, which closes the connection and so stops the model.
    Once ended, by whatever cause, the stream stays ended::

        async with client.stream("Why is the sky blue?") as stream:
            async for piece in stream:
                ...
    """

    def __init__(
        self, connections: Connections, wording: Wording | Callable[[], Awaitable[CompletionStream]]
    ) -> None:
        self._connections = connections
        self._wording: Wording
        self._prepare: Callable[[], Awaitable[CompletionStream]] | None = None
        if callable(wording):  # what is to be sent is known only when the first piece is asked for
            self._prepare = wording
        else:
            self._wording = wording
        self._body: ResponseBody | None = None
        self._decoder: AnswerDecoder | None = None
        self._deadline: float | None = None
        self._pieces: list[str | Completion] = []  # one or two; an empty deque has 760 bytes
        self._failure: ModelError | None = None
        self._heard = False  # something of the answer
        self._whole = False
        self._closed = False
        self._with_signs = True

    def only_text(self) -> Self:
        """Leave out the empty pieces, reasoning too, and return this stream."""
        self._with_signs = False
        return self

    @property
    def usage(self) -> Usage | None:
        """The tokens of the call, as far as the provider has told them so far; None: it has told none."""
        return None if self._decoder is None else self._decoder.usage

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str | Completion:
        """Return the next piece. Raises `ModelError`; if cancelled, the stream is closed."""
        try:
            if self._pieces or self._closed or self._whole:
                await trio.lowlevel.checkpoint()  # all else waits for the network
            while not self._pieces or (self._pieces[0] == "" and not self._with_signs):
                if self._pieces:
                    self._pieces.pop(0)
                    continue
                if self._closed or self._whole:
                    raise StopAsyncIteration  # noqa: TRY301 - the end is closed as every other exit is
                if self._failure is not None:
                    raise self._failure  # noqa: TRY301
                await self._wait()
                if self._closed:  # meanwhile, by another task: what has come since must not be handed out
                    raise StopAsyncIteration  # noqa: TRY301 - as above
            return self._pieces.pop(0)
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """End the stream and its connection. Runs to its end when cancelled."""
        self._closed = True
        self._pieces.clear()
        body, self._body = self._body, None
        if body is None:
            return
        try:
            if self._whole:
                with trio.move_on_after(_DRAIN_TIME):
                    await body.read_what_comes()
        finally:
            await body.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _wait(self) -> None:
        """Read from the network until there is something to hand out, within what is left of the timeout."""
        if self._deadline is None:
            self._deadline = trio.current_time() + self._connections.limits.timeout
        with trio.CancelScope(deadline=self._deadline) as scope:
            while not (self._pieces or self._failure or self._closed):
                await self._read()
        if scope.cancelled_caught:
            self._break(self._connections.timed_out())

    async def _read(self) -> None:
        try:
            if self._prepare is not None:
                self._wording = (await self._prepare())._wording  # noqa: SLF001 - of its own kind
                self._prepare = None
            if self._closed:
                return
            if self._body is None:
                wording = self._wording
                self._body = body = await self._connections.open(wording.to_send())
                self._decoder = (
                    wording.dialect.decoder(body.head)
                    if wording.streams
                    else PlainAnswer(body.head, wording.dialect.decode_whole)
                )
                if self._closed:
                    return
            data = await self._body.read()
        except ModelError as failure:
            self._break(failure)
        else:
            await self._decode(data)
        if self._failure is not None and not self._heard and self._prepare is None:
            await self._reword(self._failure)

    async def _reword(self, failure: ModelError) -> None:
        """Let the request be sent again in other words, if the server's own words ask for them."""
        if not self._wording.refused(failure):
            self._failure = self._wording.explained(failure)
            return
        body, self._body, self._decoder, self._failure = self._body, None, None, None
        if body is not None:
            await body.aclose()

    async def _decode(self, data: bytes) -> None:
        """Queue the text in `data`, and the completion once nothing follows; no data is the end."""
        decoder = self._decoder
        assert decoder is not None  # noqa: S101 - there are data
        texts: list[str] = []
        queued = False
        try:
            with counted(decoder):
                queued = await self._take(decoder.feed(data) if data else decoder.flush(), texts)
                completion = decoder.completion() if decoder.terminated or not data else None
            if completion is not None:
                told = self._wording.checked(completion)
                if told.content != completion.content:  # it was given to a tool, and not streamed
                    texts.append(told.content)
                completion = told
        except ModelError as failure:
            self._failure = failure
            completion = None
        if texts or queued or completion is not None:
            self._heard = True
            self._wording.accepted()
        if queued:
            self._hand_out(texts)
        elif texts or (data and completion is None and self._failure is None):
            self._pieces.append("".join(texts))
        if completion is not None:
            self._finish(completion)

    async def _take(self, given: Iterator[str], texts: list[str]) -> bool:
        """Add what is given to `texts`, and queue reasoning with the text ahead of it.

        Returns whether anything was queued. Others have their turn after many pieces; the text so far is
        queued before that, so that it is not lost if the time is over then.
        """
        queued = False
        for number, text in enumerate(given, start=1):
            if text or not isinstance(text, ReasoningDelta):
                texts.append(text)
            else:
                self._hand_out(texts)
                self._pieces.append(text)
                queued = True
            if number % PIECES_AT_ONCE == 0:
                queued = self._hand_out(texts) or queued
                await trio.lowlevel.checkpoint()
        return queued

    def _hand_out(self, texts: list[str]) -> bool:
        """Queue the text, and return whether there was any."""
        text = "".join(texts)
        texts.clear()
        if text:
            self._pieces.append(text)
        return bool(text)

    def _break(self, failure: ModelError) -> None:
        """End a stream that the network broke: a loss unless the model had finished."""
        if self._decoder is not None and self._decoder.finished and failure.kind in {"connection", "timeout"}:
            self._finish(self._wording.answer(self._decoder.completion()))
        else:
            if failure.usage is None:
                failure.usage = self.usage
            self._failure = failure

    def _finish(self, completion: Completion) -> None:
        self._pieces.append(completion)
        self._whole = True
