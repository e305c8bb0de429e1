"""Calls over HTTP: what a client costs beside the bare library below it."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx
import trio

from benchmarks.harness import Row, Timer, compare
from benchmarks.http_server import PIECES, chat_server
from ultra.clients import connect

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["calls", "streams"]

QUESTION = "What is the capital of France?"
MESSAGES = [{"role": "user", "content": QUESTION}]
CALLERS = 64
KEPT_FOREVER = None  # by default httpx closes what was idle for 5 s, and the pool shrinks as it is measured


async def _on_trio(call: Callable[[], Awaitable[object]], count: int) -> float:
    async def caller() -> None:
        for _ in range(count // CALLERS):
            await call()

    async def all_callers() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(CALLERS):
                nursery.start_soon(caller)

    await all_callers()  # opens the connections
    start = time.perf_counter()
    await all_callers()
    return (time.perf_counter() - start) / count


async def _ours(url: str, count: int) -> float:
    client = connect("openai:bench", base_url=url, api_key="none")
    try:
        return await _on_trio(lambda: client.generate(QUESTION), count)
    finally:
        await client.aclose()


async def _bare(url: str, count: int, pools: int) -> float:
    """One pool, or several whose connections make as many; whichever is free is used, all are kept."""
    size = CALLERS // pools
    limits = httpx.Limits(max_connections=size, max_keepalive_connections=size, keepalive_expiry=KEPT_FOREVER)
    async with AsyncExitStack() as stack:
        client = partial(httpx.AsyncClient, limits=limits, headers={"authorization": "Bearer none"})
        free = [await stack.enter_async_context(client()) for _ in range(pools)] * size

        async def call() -> str:
            client = free.pop()
            try:
                body = {"model": "bench", "messages": MESSAGES}
                response = await client.post(f"{url}/chat/completions", json=body)
                return str(response.json()["choices"][0]["message"]["content"])
            finally:
                free.append(client)

        return await _on_trio(call, count)


async def _on_asyncio(call: Callable[[], Awaitable[object]], count: int) -> float:
    async def caller() -> None:
        for _ in range(count // CALLERS):
            await call()

    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    start = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return (time.perf_counter() - start) / count


async def _openai(url: str, count: int) -> float:
    from openai import AsyncOpenAI  # noqa: PLC0415 - it imports slowly

    async with AsyncOpenAI(base_url=url, api_key="none") as client:
        messages: Any = MESSAGES
        return await _on_asyncio(
            lambda: client.chat.completions.create(model="bench", messages=messages), count
        )


async def _litellm(url: str, count: int) -> float:
    import litellm  # noqa: PLC0415 - it imports slowly

    def call() -> Awaitable[Any]:
        return litellm.acompletion(model="openai/bench", messages=MESSAGES, api_base=url, api_key="none")

    return await _on_asyncio(call, count)


def calls(*, brief: bool) -> list[Row]:
    """64 callers, each making one call after the other, to a server in another process."""
    count = CALLERS if brief else 4 * CALLERS
    with chat_server() as url:
        return compare(
            "a call over HTTP, 64 at once",
            partial(trio.run, _ours, url, count),
            {
                "bare httpx, one pool": (partial(trio.run, _bare, url, count, 1), 1.15),
                "bare httpx, eight pools of eight": (partial(trio.run, _bare, url, count, 8), None),
                "the official openai client": (_asyncio(_openai, url, count), 1.0),
                "litellm": (_asyncio(_litellm, url, CALLERS), 1.0),
            },
            rounds=1 if brief else 5,
        )


# --- streams ---------------------------------------------------------------------------------------


async def _processor_time(count: int, stream: Callable[[], Awaitable[int]]) -> float:
    """Processor seconds for one of `count` streams at once, the second time, on open connections."""
    pieces = 0

    async def reader() -> None:
        nonlocal pieces
        read = await stream()
        pieces += read

    for _ in range(2):
        pieces = 0
        start = time.process_time()
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(reader)
    if pieces != count * PIECES:
        raise RuntimeError(f"{pieces} pieces were read")
    return (time.process_time() - start) / count


async def _our_streams(url: str, count: int) -> float:
    client = connect("openai:bench", base_url=url, api_key="none")

    async def stream() -> int:
        async with client.stream(QUESTION) as answer:
            return sum([len(piece.split()) async for piece in answer if isinstance(piece, str)])

    try:
        return await _processor_time(count, stream)
    finally:
        await client.aclose()


async def _bare_streams(url: str, count: int) -> float:
    limits = httpx.Limits(max_connections=count, max_keepalive_connections=count)
    async with httpx.AsyncClient(limits=limits, timeout=60) as client:
        body = {"model": "bench", "messages": MESSAGES, "stream": True}

        async def stream() -> int:
            async with client.stream("POST", f"{url}/chat/completions", json=body) as response:
                return sum([line.count("word") async for line in response.aiter_lines()])

        return await _processor_time(count, stream)


def streams(*, brief: bool) -> list[Row]:
    """Many streams at once, against one pool of httpx for all."""
    count = 20 if brief else 500
    with chat_server(pause=0.01 if brief else 0.2) as url:
        return compare(
            f"processor time of a stream over HTTP, {count} at once",
            partial(trio.run, _our_streams, url, count),
            {"bare httpx, one pool": (partial(trio.run, _bare_streams, url, count), 1.0)},
            rounds=1 if brief else 3,
        )


def _asyncio(function: Callable[..., Awaitable[float]], *args: object) -> Timer:
    async def run() -> float:
        return await function(*args)

    return lambda: asyncio.run(run())
