"""`ultra serve` beside LiteLLM's proxy and beside the library, in processes of their own; Linux only.

Every question is another one, so that nothing is joined and nothing comes from a cache.
"""

from __future__ import annotations

import gc
import time
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Final

import trio

from benchmarks.harness import Row, row
from benchmarks.http_server import chat_server
from benchmarks.service_processes import (
    Connection,
    Proxy,
    litellm_installed,
    litellm_proxy,
    processor_seconds,
    ultra_service,
)
from ultra import Limits, MultiLLMOrchestrator
from ultra.clients import connect

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["idle_streams", "passthrough", "run_of_three", "streamed_tokens"]

AT_ONCE: Final = 16
SHARE_OF_LITELLM: Final = 0.1
MOST_TO_BOOT: Final = 1.5  # seconds
MOST_OF_THE_LIBRARY: Final = 1.3
MORE_THAN_THE_LIBRARY: Final = 0.5e-3  # seconds
MOST_A_STREAM: Final = 60 * 1024  # bytes
MOST_A_TOKEN: Final = 100e-6  # seconds
STREAMS: Final = 50
TOKENS: Final = 200
PACE: Final = 0.03  # seconds between two tokens of a stream

_numbers = count()


def _question() -> str:
    return f"What is the capital of the country with the number {next(_numbers)}?"


async def _asked(port: int, model: str, at_once: int, total: int) -> float:
    """Seconds that a request takes, of `total` by so many connections, each used again and again."""
    connections = [await Connection.to(port) for _ in range(at_once)]

    async def ask(connection: Connection, times: int) -> None:
        for _ in range(times):
            await connection.ask(model, _question())

    start = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for connection in connections:
            nursery.start_soon(ask, connection, total // at_once)
    taken = (time.perf_counter() - start) / (total // at_once * at_once)
    for connection in connections:
        await connection.aclose()
    return taken


def _costs(proxy: Proxy, model: str, at_once: int, total: int) -> tuple[float, float]:
    """Seconds, and processor seconds of the proxy, that a request takes."""
    before = proxy.processor_time
    taken = trio.run(_asked, proxy.port, model, at_once, total)
    return taken, (proxy.processor_time - before) / total


def _beside_litellm(name: str, taken: Sequence[tuple[float, float]]) -> Row:
    ours, theirs = zip(*taken, strict=True)
    return row(name, "LiteLLM's proxy", ours, theirs, target=SHARE_OF_LITELLM)


def passthrough(*, brief: bool) -> list[Row]:
    """One model at 16 connections, its upstream answering at once; and how long both take to start."""
    ours, theirs = (64, 64) if brief else (1024, 256)
    times: list[tuple[float, float]] = []
    processor: list[tuple[float, float]] = []
    boots: list[tuple[float, float]] = []
    with chat_server(pause=0) as upstream, litellm_installed() as command:
        for _ in range(1 if brief else 3):
            with litellm_proxy(command, upstream) as other, ultra_service(upstream) as proxy:
                boots.append((proxy.booted, other.booted))
                for number in range(2 if brief else 3):
                    mine = _costs(proxy, "one", AT_ONCE, ours)
                    of_others = _costs(other, "one", AT_ONCE, theirs)
                    if number:  # the first round warms up
                        times.append((mine[0], of_others[0]))
                        processor.append((mine[1], of_others[1]))
    name = f"a request to one model, {AT_ONCE} at once"
    booted, litellm_booted = zip(*boots, strict=True)
    boot, limit = "from the start to the first answer", [MOST_TO_BOOT] * len(boots)
    return [
        _beside_litellm(f"{name}, processor time", processor),
        _beside_litellm(name, times),
        row(boot, f"{MOST_TO_BOOT:g} s", booted, limit, target=1),
        row(boot, "LiteLLM's proxy", booted, litellm_booted, target=None),
    ]


async def _library(upstream: str, total: int, *, streamed: bool) -> float:
    """Processor seconds of a run of the library, with the clients that the service has."""
    async with MultiLLMOrchestrator() as orchestrator:
        for name in ("one", "two", "three"):
            client = connect("openai:bench", base_url=upstream, api_key="none")
            orchestrator.register_model(name, client, limits=Limits(concurrency=2000))

        async def run() -> None:
            if not streamed:
                await orchestrator.process_responses(_question())
                return
            async with orchestrator.stream_responses(_question()) as stream:
                async for _ in stream:
                    pass

        for _ in range(20):
            await run()
        start = processor_seconds()
        for _ in range(total):
            await run()
        return (processor_seconds() - start) / total


def run_of_three(*, brief: bool) -> list[Row]:
    """A run of three models and all stages, seven calls, one after the other.

    The request is not streamed, so the service asks the models for whole answers, as the library does for a
    run that nobody reads. A run that is streamed costs more.
    """
    total = 10 if brief else 200
    ours: list[float] = []
    streamed: list[float] = []
    plain: list[float] = []
    with chat_server(pause=0) as upstream, ultra_service(upstream) as proxy:
        for number in range(2 if brief else 6):
            gc.collect()
            taken = [
                _costs(proxy, "council", 1, total)[1],
                trio.run(partial(_library, upstream, total, streamed=True)),
                trio.run(partial(_library, upstream, total, streamed=False)),
            ]
            if number:
                for series, seconds in zip((ours, streamed, plain), taken, strict=True):
                    series.append(seconds)
    name = "a run of three models, processor time"
    allowed = [MOST_OF_THE_LIBRARY * each + MORE_THAN_THE_LIBRARY for each in plain]
    limit = f"{MOST_OF_THE_LIBRARY} times the library's and {MORE_THAN_THE_LIBRARY * 1e3:g} ms"
    return [
        row(name, limit, ours, allowed, target=1),
        row(name, "the library, streamed", ours, streamed, target=None),
        row(name, "the library, read by nobody", ours, plain, target=None),
    ]


# --- streams ------------------------------------------------------------------------------------------


async def _open(port: int, streams: int, then: Callable[[], float]) -> float:
    """Open so many streams, wait for the first token of each, and return ``then()``."""
    connections = [await Connection.to(port) for _ in range(streams)]

    async def begin(connection: Connection) -> None:
        await connection.send("one", _question(), stream=True)
        await connection.read_until(b'"content":"word')

    async with trio.open_nursery() as nursery:
        for connection in connections:
            nursery.start_soon(begin, connection)
    found = then()
    for connection in connections:
        await connection.aclose()
    return found


def idle_streams(*, brief: bool) -> list[Row]:
    """The memory of streams that have begun, and wait for the rest of their answers."""
    streams = 50 if brief else 1000
    taken: list[float] = []
    for _ in range(1 if brief else 3):
        with chat_server(pause=3600.0) as upstream, ultra_service(upstream, answers=False) as proxy:
            trio.run(_open, proxy.port, 10, lambda: 0.0)  # what all streams share
            before = proxy.memory
            opened = trio.run(_open, proxy.port, streams, lambda: float(proxy.memory))
            taken.append((opened - before) / streams)
    return [
        row(
            f"memory, {streams:,} idle streams",
            f"{MOST_A_STREAM // 1024} KiB",
            taken,
            [float(MOST_A_STREAM)] * len(taken),
            target=1,
            unit="bytes",
        )
    ]


async def _read_all(port: int, streams: int) -> int:
    """Read so many streams to their end at once; return how many events came."""
    events = 0

    async def read() -> None:
        nonlocal events
        connection = await Connection.to(port)
        await connection.send("one", _question(), stream=True)
        came = await connection.read_until(b"data: [DONE]")
        events += came
        await connection.aclose()

    async with trio.open_nursery() as nursery:
        for _ in range(streams):
            nursery.start_soon(read)
    return events


def streamed_tokens(*, brief: bool) -> list[Row]:
    """Processor time of a token, of all that the streams cost, each token an event of its own."""
    streams, tokens = (5, 20) if brief else (STREAMS, TOKENS)
    taken: list[float] = []
    shares: list[float] = []
    with chat_server(pause=PACE, pieces=tokens) as upstream, ultra_service(upstream) as proxy:
        for number in range(2 if brief else 4):
            before = proxy.processor_time
            events = trio.run(_read_all, proxy.port, streams)
            if number:
                taken.append((proxy.processor_time - before) / (streams * tokens))
                shares.append(events / (streams * (tokens + 3)))  # the role, the reason of the end, its mark
    return [
        row(
            f"a token of {streams} streams of {tokens}, processor time",
            f"{MOST_A_TOKEN * 1e6:g} µs",
            taken,
            [MOST_A_TOKEN] * len(taken),
            target=1,
            note=f"{min(shares):.0%} of the tokens came as events of their own",
        )
    ]
