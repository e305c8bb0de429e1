"""Tokens from models to a reader."""

from __future__ import annotations

import math
import time
from functools import partial
from random import Random
from typing import TYPE_CHECKING

import trio

from benchmarks.harness import Row, compare, p99, row
from ultra import Limits, MultiLLMOrchestrator
from ultra.messages.events import Chunk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["chunk_latency", "tokens"]


class Talker:
    """Streams `count` tokens, and lets others run after every `burst` of them."""

    def __init__(self, count: int, burst: int) -> None:
        self.count = count
        self.burst = burst

    async def generate(self, prompt: str) -> str:
        return "word " * self.count

    async def stream(self, prompt: str) -> AsyncIterator[str]:
        for number in range(self.count):
            if number % self.burst == 0:
                await trio.lowlevel.checkpoint()
            yield "word "


async def _ours(count: int, burst: int) -> float:
    async with MultiLLMOrchestrator(cache_enabled=False) as orchestrator:
        for name in ("one", "two", "three"):
            orchestrator.register_model(name, Talker(count // 3, burst))
        start = time.perf_counter()
        async with orchestrator.stream_responses("Speak.", stages=["initial"]) as run:
            read = 0
            async for event in run:
                read += len(event.text) // 5 if isinstance(event, Chunk) else 0
        taken = time.perf_counter() - start
    if read != 3 * (count // 3):
        raise RuntimeError(f"{read} tokens were read")
    return taken / count


async def _channel(count: int, burst: int) -> float:
    """As many items through one memory channel, from three tasks to one."""
    send, receive = trio.open_memory_channel[str](math.inf)

    async def talk(own: trio.MemorySendChannel[str]) -> None:
        async with own:
            async for word in Talker(count // 3, burst).stream(""):
                own.send_nowait(word)

    start = time.perf_counter()
    async with trio.open_nursery() as nursery:
        async with send:
            for _ in range(3):
                nursery.start_soon(talk, send.clone())
        async for _ in receive:
            pass
    return (time.perf_counter() - start) / count


def tokens(*, brief: bool) -> list[Row]:
    """Tokens of three models through to one reader, one by one and in bursts of eight."""
    count = 300 if brief else 30_000
    rows = []
    for burst in (1, 8):
        rows += compare(
            f"a streamed token, bursts of {burst}",
            partial(trio.run, _ours, count, burst),
            {"an item of a memory channel": (partial(trio.run, _channel, count, burst), 2.0)},
            rounds=1 if brief else 7,
        )
    return rows


class Clocked:
    """Streams the time at which each piece left it: one every 20 ms on average, at moments of its own.

    Streams in step would measure how long trio takes to go through all of them once.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._random = Random(0)

    async def generate(self, prompt: str) -> str:
        return prompt

    async def stream(self, prompt: str) -> AsyncIterator[str]:
        for _ in range(self.count):
            await trio.sleep(self._random.uniform(0.01, 0.03))
            yield f"{time.perf_counter()} "


def _ages(text: str) -> list[float]:
    """How long ago the pieces of `text` left their model [s]."""
    now = time.perf_counter()
    return [now - float(sent) for sent in text.split()]


async def _our_latency(streams: int, count: int) -> float:
    waits: list[float] = []
    async with MultiLLMOrchestrator(cache_enabled=False) as orchestrator:
        orchestrator.register_model("clocked", Clocked(count), limits=Limits(concurrency=None))

        async def read(number: int) -> None:
            async with orchestrator.stream_responses(f"{number}", stages=["initial"]) as run:
                async for event in run:
                    if isinstance(event, Chunk):
                        waits.extend(_ages(event.text))

        async with trio.open_nursery() as nursery:
            for number in range(streams):
                nursery.start_soon(read, number)
    return p99(waits)


async def _channel_latency(streams: int, count: int) -> float:
    """The same pieces through one memory channel for each stream."""
    waits: list[float] = []
    model = Clocked(count)

    async def talk(send: trio.MemorySendChannel[str]) -> None:
        async with send:
            async for piece in model.stream(""):
                send.send_nowait(piece)

    async def read(receive: trio.MemoryReceiveChannel[str]) -> None:
        async for piece in receive:
            waits.extend(_ages(piece))

    async with trio.open_nursery() as nursery:
        for _ in range(streams):
            send, receive = trio.open_memory_channel[str](math.inf)
            nursery.start_soon(talk, send)
            nursery.start_soon(read, receive)
    return p99(waits)


def chunk_latency(*, brief: bool) -> list[Row]:
    """From the moment a model hands out a piece to the reader's event, with many streams at once."""
    streams, count = (5, 3) if brief else (100, 50)
    ours: list[float] = []
    channel: list[float] = []
    for number in range(1 if brief else 8):
        waits = trio.run(_our_latency, streams, count), trio.run(_channel_latency, streams, count)
        if number or brief:  # the first round warms up
            ours.append(waits[0])
            channel.append(waits[1])
    name = f"chunk to event, {streams} streams, p99"
    return [
        row(name, "the aim of 1 ms", ours, [1e-3] * len(ours), target=1.0),
        row(name, "the same through memory channels", ours, channel, target=None),
    ]
