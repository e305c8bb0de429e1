"""Tokens from models to a reader."""

from __future__ import annotations

import math
import time
from functools import partial
from typing import TYPE_CHECKING

import trio

from benchmarks.harness import Row, compare, row
from ultra import Limits, MultiLLMOrchestrator
from ultra.events import Chunk

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
    """Streams the time at which each piece left it, one every few milliseconds."""

    def __init__(self, count: int) -> None:
        self.count = count

    async def generate(self, prompt: str) -> str:
        return prompt

    async def stream(self, prompt: str) -> AsyncIterator[str]:
        for _ in range(self.count):
            await trio.sleep(0.02)
            yield f"{time.perf_counter()} "


async def _latencies(streams: int, count: int) -> list[float]:
    waits: list[float] = []
    async with MultiLLMOrchestrator(cache_enabled=False) as orchestrator:
        orchestrator.register_model("clocked", Clocked(count), limits=Limits(concurrency=None))

        async def read(number: int) -> None:
            async with orchestrator.stream_responses(f"{number}", stages=["initial"]) as run:
                async for event in run:
                    if isinstance(event, Chunk):
                        now = time.perf_counter()
                        waits.extend(now - float(sent) for sent in event.text.split())

        async with trio.open_nursery() as nursery:
            for number in range(streams):
                nursery.start_soon(read, number)
    return sorted(waits)


def chunk_latency(*, brief: bool) -> list[Row]:
    """From the moment a model hands out a piece to the reader's event, with many streams at once."""
    streams, count = (5, 3) if brief else (100, 50)
    ours = []
    for _ in range(1 if brief else 5):
        waits = trio.run(_latencies, streams, count)
        ours.append(waits[math.ceil(0.99 * len(waits)) - 1])
    return [
        row(
            f"chunk to event, {streams} streams, p99", "the aim of 1 ms", ours, [1e-3] * len(ours), target=1.0
        )
    ]
