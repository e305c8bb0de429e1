"""Processor time of a call over HTTP: how much of this machine a call takes, however long the answer does."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import h11
import httpx
import msgspec
import trio

from benchmarks.harness import Row, Timer, compare
from benchmarks.http import MESSAGES, QUESTION
from benchmarks.http_server import chat_server
from ultra.clients import connect

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["processor_time"]

AT_ONCE = (1, 16, 64)
_BODY = msgspec.json.encode({"model": "bench", "messages": MESSAGES})


async def _on_trio(call: Callable[[], Awaitable[object]], at_once: int, count: int) -> float:
    """Processor seconds of one of `count` calls by `at_once` callers, on connections that are open."""

    async def caller(calls: int) -> None:
        for _ in range(calls):
            await call()

    for calls in (2, count // at_once):
        start = time.process_time()
        async with trio.open_nursery() as nursery:
            for _ in range(at_once):
                nursery.start_soon(caller, calls)
    return (time.process_time() - start) / (count // at_once * at_once)


async def _on_asyncio(call: Callable[[], Awaitable[object]], at_once: int, count: int) -> float:
    async def caller(calls: int) -> None:
        for _ in range(calls):
            await call()

    for calls in (2, count // at_once):
        start = time.process_time()
        await asyncio.gather(*(caller(calls) for _ in range(at_once)))
    return (time.process_time() - start) / (count // at_once * at_once)


async def _ours(url: str, at_once: int, count: int) -> float:
    client = connect("openai:bench", base_url=url, api_key="none")
    try:
        return await _on_trio(lambda: client.generate(QUESTION), at_once, count)
    finally:
        await client.aclose()


async def _httpx(url: str, at_once: int, count: int) -> float:
    """As httpx is used without further thought, but that as many connections are kept as there are calls."""
    limits = httpx.Limits(max_connections=at_once, max_keepalive_connections=at_once)
    async with httpx.AsyncClient(limits=limits, headers={"authorization": "Bearer none"}) as client:

        async def call() -> str:
            body = {"model": "bench", "messages": MESSAGES}
            response = await client.post(f"{url}/chat/completions", json=body)
            return str(response.json()["choices"][0]["message"]["content"])

        return await _on_trio(call, at_once, count)


async def _openai(url: str, at_once: int, count: int) -> float:
    from openai import AsyncOpenAI  # noqa: PLC0415 - it imports slowly

    async with AsyncOpenAI(base_url=url, api_key="none") as client:
        messages: Any = MESSAGES
        create = client.chat.completions.create
        return await _on_asyncio(lambda: create(model="bench", messages=messages), at_once, count)


async def _aiohttp(url: str, at_once: int, count: int) -> float:
    import aiohttp  # noqa: PLC0415 - only this peer needs it

    async with aiohttp.ClientSession(headers={"authorization": "Bearer none"}) as session:

        async def call() -> str:
            body = {"model": "bench", "messages": MESSAGES}
            async with session.post(f"{url}/chat/completions", json=body) as response:
                return str((await response.json())["choices"][0]["message"]["content"])

        return await _on_asyncio(call, at_once, count)


async def _h11(url: str, at_once: int, count: int) -> float:
    """The protocol on sockets that never fail: no timeouts, TLS, proxies, errors."""
    address = httpx.URL(url)
    headers = {
        "host": "bench",
        "content-type": "application/json",
        "authorization": "Bearer none",
        "content-length": str(len(_BODY)),
    }
    free: list[tuple[trio.SocketStream, h11.Connection]] = []

    async def call() -> object:
        if free:
            stream, connection = free.pop()
            connection.start_next_cycle()
        else:
            stream = await trio.open_tcp_stream(address.host, address.port or 80)
            connection = h11.Connection(h11.CLIENT)
        target = f"{address.path}/chat/completions"
        head = connection.send(h11.Request(method="POST", target=target, headers=list(headers.items())))
        connection.send(h11.Data(data=_BODY))
        connection.send(h11.EndOfMessage())
        await stream.send_all((head or b"") + _BODY)
        body = b""
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                connection.receive_data(await stream.receive_some())
            elif isinstance(event, h11.Data):
                body += event.data
        free.append((stream, connection))
        return msgspec.json.decode(body)

    try:
        return await _on_trio(call, at_once, count)
    finally:
        for stream, _ in free:
            await stream.aclose()


def processor_time(*, brief: bool) -> list[Row]:
    """1, 16 and 64 callers, each making one call after the other, to a server in another process."""
    count = 128 if brief else 512
    rows: list[Row] = []
    with chat_server() as url:
        for at_once in AT_ONCE:
            rows += compare(
                f"processor time of a call over HTTP, {at_once} at once",
                partial(trio.run, _ours, url, at_once, count),
                {
                    "bare httpx, one pool": (partial(trio.run, _httpx, url, at_once, count), 1.0),
                    "the official openai client": (_asyncio(_openai, url, at_once, count), 1.0),
                    "aiohttp": (_asyncio(_aiohttp, url, at_once, count), None),
                    "h11 on a bare socket": (partial(trio.run, _h11, url, at_once, count), None),
                },
                rounds=1 if brief else 5,
            )
    return rows


def _asyncio(function: Callable[..., Awaitable[float]], *args: object) -> Timer:
    async def run() -> float:
        return await function(*args)

    return lambda: asyncio.run(run())
