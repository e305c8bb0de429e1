"""Bodies in very many tiny pieces: whatever else runs on the loop has its turn between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import trio

from ultra.clients import connect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PIECES = 5_000
END = b'data: {"choices":[{"delta":{"content":"x"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


class Arrived(httpx.AsyncByteStream):
    """Has all its pieces already, so that none is waited for."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(PIECES):
            yield b"\n"
        yield END


async def test_pieces_that_have_arrived_do_not_keep_the_loop_for_themselves() -> None:
    async def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=Arrived())

    client = connect("openai:m", api_key="k", transport=httpx.MockTransport(answer))
    turns = 0
    async with trio.open_nursery() as nursery:

        async def others() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        nursery.start_soon(others)
        async with client.stream("q") as stream:
            pieces = [piece async for piece in stream]
        nursery.cancel_scope.cancel()
    await client.aclose()
    assert pieces[-1].content == "x"  # type: ignore[union-attr]
    assert turns > PIECES / 100
