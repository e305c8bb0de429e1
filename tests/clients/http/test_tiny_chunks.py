"""Bodies of very many tiny pieces: whatever else runs on the loop has its turn between them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx
import pytest
import trio

from ultra.clients import connect
from ultra.messages.request import ModelRequest
from ultra.messages.results import Completion

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ultra.clients.http.completion_stream import CompletionStream

PIECES = 5_000
END = b'data: {"choices":[{"delta":{"content":"x"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


class Arrived(httpx.AsyncByteStream):
    """Has all its pieces already, so that none is waited for."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(PIECES):
            yield b"\n"
        yield END


@asynccontextmanager
async def turns_of_others() -> AsyncIterator[list[int]]:
    """Counts how often another task has its turn inside the block."""
    turns = [0]

    async def others() -> None:
        while True:
            await trio.lowlevel.checkpoint()
            turns[0] += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(others)
        yield turns
        nursery.cancel_scope.cancel()


async def test_pieces_that_have_arrived_do_not_keep_the_loop_for_themselves() -> None:
    async def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=Arrived())

    client = connect("openai:m", api_key="k", transport=httpx.MockTransport(answer))
    async with turns_of_others() as turns, client.stream("q") as stream:
        pieces = [piece async for piece in stream]
    await client.aclose()
    assert pieces[-1].content == "x"  # type: ignore[union-attr]
    assert turns[0] > PIECES / 100


def _sse(piece: str, *ends: str) -> bytes:
    return b"".join(f"data: {each}\n\n".encode() for each in [piece] * PIECES + [*ends])


STOPPED = '{"type":"message_delta","delta":{"stop_reason":"end_turn"}}'
BODIES = {
    "openai:m": _sse('{"choices":[{"delta":{"content":"x"}}]}', '{"choices":[{"finish_reason":"stop"}]}'),
    "anthropic:m": _sse(
        '{"type":"content_block_delta","delta":{"type":"text_delta","text":"x"}}',
        STOPPED,
        '{"type":"message_stop"}',
    ),
    "gemini:m": _sse(
        '{"candidates":[{"content":{"parts":[{"text":"x"}]}}]}', '{"candidates":[{"finishReason":"STOP"}]}'
    ),
    "ollama:m": b'{"message":{"content":"x"}}\n' * PIECES + b'{"done":true}\n',
}


@pytest.mark.parametrize("model", BODIES)
@pytest.mark.parametrize("asked", ["streamed", "plain"])
async def test_many_tiny_events_in_one_chunk_do_not_keep_the_loop_for_themselves(
    model: str, asked: str
) -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        kind = "application/x-ndjson" if model == "ollama:m" else "text/event-stream"
        return httpx.Response(200, content=BODIES[model], headers={"content-type": kind})

    client = connect(model, api_key="k", transport=httpx.MockTransport(answer))
    async with turns_of_others() as turns:
        if asked == "plain":
            told: list[str | Completion] = [await client.respond(ModelRequest.of("q"))]
        else:
            async with client.stream_response(ModelRequest.of("q")) as stream:
                told = [piece async for piece in stream]
    await client.aclose()
    completion = told.pop()
    assert isinstance(completion, Completion)
    assert completion.content == "x" * PIECES
    assert asked == "plain" or "".join(map(str, told)) == "x" * PIECES
    assert turns[0] >= PIECES / 512


async def read_into(pieces: list[str | Completion], stream: CompletionStream) -> None:
    async for piece in stream:
        pieces.append(piece)  # noqa: PERF401 - what came before an error stays


@pytest.mark.parametrize("end", ["cut off", "whole"])
async def test_a_stream_that_is_closed_while_it_decodes_stays_ended(end: str) -> None:
    sent: list[httpx.Request] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        await trio.lowlevel.checkpoint()
        body = BODIES["openai:m"] if end == "whole" else _sse('{"choices":[{"delta":{"content":"x"}}]}')
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=body)

    client = connect("openai:m", api_key="k", transport=httpx.MockTransport(answer))
    stream, pieces = client.stream("q"), list[str | Completion]()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_into, pieces, stream)
        while not stream._pieces:  # the first ones are decoded, and not handed out yet
            await trio.lowlevel.checkpoint()
        await stream.aclose()

    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    await client.aclose()
    assert (pieces, len(sent)) == ([], 1)


async def test_a_stream_that_is_closed_while_its_request_is_sent_leaves_no_connection_open() -> None:
    closed: list[bool] = []
    opening, opened = trio.Event(), trio.Event()

    class Body(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield END

        async def aclose(self) -> None:
            closed.append(True)

    async def answer(_: httpx.Request) -> httpx.Response:
        opening.set()
        await opened.wait()
        return httpx.Response(200, stream=Body())

    client = connect("openai:m", api_key="k", transport=httpx.MockTransport(answer))
    stream, pieces = client.stream("q"), list[str | Completion]()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_into, pieces, stream)
        await opening.wait()
        await stream.aclose()
        opened.set()

    assert (pieces, closed) == ([], [True])
    await client.aclose()
