"""The body of one response, decompressed, as it arrives, and never longer than allowed."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final, cast

import trio

from ultra.clients.http.decompression import Decompressor
from ultra.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx

    from ultra.clients.http.connections import Connections
    from ultra.clients.wire.response_head import ResponseHead

__all__ = ["ResponseBody"]


_LONGEST_ERROR: Final = 256 * 1024  # bytes; of more, no word would be quoted


_TAKEN_AT_ONCE: Final = 32
"""Pieces after which others have their turn: ten thousand chunks of one byte may have arrived together."""


class ResponseBody:
    """The bytes of one response, decompressed, and at most ``max_response_bytes`` of them.

    As they were sent, compressed, they may be no more either: an endless stream of empty members is one.

    It holds a connection until `aclose`.
    """

    def __init__(
        self,
        response: httpx.Response,
        head: ResponseHead,
        connections: Connections,
    ) -> None:
        self.head = head
        self._response = response
        self._connections = connections
        if response.is_stream_consumed:  # a transport for tests gave the whole answer, decompressed
            self._pieces: AsyncIterator[bytes] = response.aiter_bytes()
            self._decompressor: Decompressor | None = Decompressor("identity")
        else:
            # Raw, for httpx decompresses without bound, and what it raises then leaves its generators open.
            self._pieces = aiter(cast("httpx.AsyncByteStream", response.stream))
            self._decompressor = None
        self._left = self._left_compressed = connections.limits.max_response_bytes
        self._taken = 0
        self._started = False
        self._ended = False

    async def read(self) -> bytes:
        """Return the next piece, never empty; b"" at the end. Raises `ModelError`."""
        self._started = True
        while True:
            piece = self._decompress()
            self._left -= len(piece)
            if self._left < 0:
                raise self._too_long()
            if piece or self._ended or (self._decompressor is not None and self._decompressor.ended):
                return piece
            sent = await self._connections.guard(self._advance())
            self._taken += 1
            if self._taken % _TAKEN_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
            self._left_compressed -= len(sent)
            if self._left_compressed < 0:
                raise self._too_long()
            self._feed(sent)

    async def read_all(self) -> bytes:
        """Return the whole body. Raises `ModelError`."""
        pieces = []
        while piece := await self.read():
            pieces.append(piece)
        return b"".join(pieces)

    async def read_what_comes(self) -> bytes:
        """Return as much of the body as arrives: half an error message says more than none.

        Of a long one only the beginning is read.
        """
        pieces = bytearray()
        with suppress(ModelError):
            while len(pieces) < _LONGEST_ERROR and (piece := await self.read()):
                pieces += piece
        return bytes(pieces)

    async def aclose(self) -> None:
        """Give the connection back if the body was read to its end, and close it otherwise.

        Never waits for the network, and runs to its end when cancelled.
        """
        import httpx  # noqa: PLC0415 - loaded already: there is a response

        with trio.CancelScope(shield=True):
            await self._response.aclose()
            if not self._started or self._ended:
                return
            # Bodies are nested async generators, which trio wants run to their end. On a closed connection
            # they get there by an error; a transport that goes on sending is cancelled.
            with trio.CancelScope() as ending, suppress(httpx.HTTPError, httpx.StreamError):
                ending.cancel()
                while not self._ended:
                    await self._advance()

    async def _advance(self) -> bytes:
        try:
            return await anext(self._pieces)
        except StopAsyncIteration:
            self._ended = True
            return b""
        except BaseException:
            self._ended = True
            raise

    def _feed(self, sent: bytes) -> None:
        try:
            if self._decompressor is None:
                self._decompressor = Decompressor(self.head.headers.get("content-encoding", ""))
            self._decompressor.feed(sent)
        except ValueError as error:
            failure = self.head.malformed(f"it cannot be decompressed: {error}")
        else:
            return
        raise failure

    def _decompress(self) -> bytes:
        """Return the next piece of what has been sent; b"" if more has to be sent first."""
        try:
            return b"" if self._decompressor is None else self._decompressor.read()
        except ValueError as error:
            failure = self.head.malformed(f"it cannot be decompressed: {error}")
        raise failure

    def _too_long(self) -> ModelError:
        allowed = self._connections.limits.max_response_bytes
        message = f"the answer is longer than max_response_bytes ({allowed} bytes)"
        return ModelError(message, provider=self._connections.provider, kind="protocol", retryable=False)
