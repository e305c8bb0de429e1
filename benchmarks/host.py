"""Ultra called from asyncio: what the way to trio's thread and back costs, and whether the loop stalls."""

from __future__ import annotations

import asyncio
import contextvars
import time
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

import trio

from benchmarks.harness import Row, p99, row
from benchmarks.runs import ANSWER, NAMES, QUESTION, instant
from ultra import Limits, MultiLLMOrchestrator

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["asyncio_run", "hop", "stalls"]

MORE_A_RUN = 0.6e-3
"""Seconds that a run may take longer from asyncio than on trio."""

ROUND_TRIPS = 4
"""How often a run goes to the other thread and back: into trio, and for each stage to its clients."""

LONGEST_STALL = 20e-3
"""Seconds for which the loop may stand still, in 99 of 100 looks at it."""


async def _runs(count: int) -> float:
    """Seconds for one run, from the loop that this is called on; so the clients are on it, too."""
    async with MultiLLMOrchestrator(cache_enabled=False) as orchestrator:
        for name in NAMES:
            orchestrator.register_model(name, instant)
        await orchestrator.process_responses(QUESTION)
        start = time.perf_counter()
        for _ in range(count):
            await orchestrator.process_responses(QUESTION)
        return (time.perf_counter() - start) / count


def asyncio_run(*, brief: bool) -> list[Row]:
    """A run from asyncio, its seven calls on the asyncio loop, against the same run on trio."""
    count = 5 if brief else 200
    more: list[float] = []
    asyncio_times: list[float] = []
    trio_times: list[float] = []
    ways: list[float] = []
    for number in range(2 if brief else 8):
        on_asyncio = asyncio.run(_runs(count))
        on_trio = trio.run(_runs, count)
        way = ROUND_TRIPS * asyncio.run(_executor(10 * count))
        if number:  # the first round warms up
            ways.append(way)
            asyncio_times.append(on_asyncio)
            trio_times.append(on_trio)
            more.append(max(on_asyncio - on_trio, 1e-9))
    note = f"{median(more) * 1e3:.2f} ms more a run"
    return [
        row("a run from asyncio", "the same on trio", asyncio_times, trio_times, target=None, note=note),
        row(
            "what a run takes longer from asyncio",
            f"{MORE_A_RUN * 1e3:g} ms",
            more,
            [MORE_A_RUN] * len(more),
            target=1,
        ),
        row(
            "what a run takes longer from asyncio",
            f"{ROUND_TRIPS} round trips of asyncio's run_in_executor",
            more,
            ways,
            target=None,
        ),
    ]


# --- one way there and back ------------------------------------------------------------------------


async def _hops(count: int) -> tuple[float, float]:
    """Seconds from asyncio to trio and back, and from trio to asyncio and back."""
    from ultra.bridge.asyncio_loop import AsyncioLoop  # noqa: PLC0415
    from ultra.bridge.portal import TrioThread  # noqa: PLC0415 - with the loop that it is for

    loop, context = AsyncioLoop.running(), contextvars.copy_context()
    thread = TrioThread()
    thread.start()

    async def nothing() -> None:
        pass

    async def back_and_forth() -> float:
        start = time.perf_counter()
        for _ in range(count):
            await loop(lambda _: nothing(), None, context)
        return (time.perf_counter() - start) / count

    await thread.run(nothing)
    start = time.perf_counter()
    for _ in range(count):
        await thread.run(nothing)
    there = (time.perf_counter() - start) / count
    back = await thread.run(back_and_forth)
    await thread.stop()
    return there, back


async def _executor(count: int) -> float:
    """The same way to a thread of asyncio's own and back."""
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, int)
    start = time.perf_counter()
    for _ in range(count):
        await loop.run_in_executor(None, int)
    return (time.perf_counter() - start) / count


def hop(*, brief: bool) -> list[Row]:
    """To the other loop's thread and back, against asyncio's own executor."""
    count = 20 if brief else 2000
    there, back, executor = [], [], []
    for number in range(2 if brief else 8):
        hops = asyncio.run(_hops(count))
        floor = asyncio.run(_executor(count))
        if number:
            there.append(hops[0])
            back.append(hops[1])
            executor.append(floor)
    against = "asyncio's run_in_executor"
    return [
        row("from asyncio to trio and back", against, there, executor, target=None),
        row("from trio to asyncio and back", against, back, executor, target=None),
    ]


# --- stalls ----------------------------------------------------------------------------------------


async def _lags(runs: int, seconds: float, work: Callable[[], Awaitable[object]] | None) -> list[float]:
    """By how much a task that wants to run every millisecond is late, while `runs` do `work` in a loop."""
    lags: list[float] = []
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds

    async def repeat() -> None:
        while work is not None and loop.time() < end:
            await work()

    busy = [asyncio.create_task(repeat()) for _ in range(runs)]
    while loop.time() < end:
        due = loop.time() + 0.001
        await asyncio.sleep(0.001)
        lags.append(loop.time() - due)
    await asyncio.gather(*busy)
    return sorted(lags)


async def _busy_lags(runs: int, seconds: float) -> list[float]:
    async def model(prompt: str) -> str:
        await asyncio.sleep(0.1)
        return ANSWER

    async with MultiLLMOrchestrator(cache_enabled=False) as orchestrator:
        for name in NAMES:
            orchestrator.register_model(name, model, limits=Limits(concurrency=None))
        return await _lags(runs, seconds, partial(orchestrator.process_responses, QUESTION))


def stalls(*, brief: bool) -> list[Row]:
    """How long the asyncio loop stands still with 100 runs in flight, and with none."""
    runs, seconds = (10, 0.3) if brief else (100, 5.0)
    busy, idle = [], []
    longest = 0.0
    for _ in range(1 if brief else 3):
        lags = asyncio.run(_busy_lags(runs, seconds))
        busy.append(p99(lags))
        longest = max(longest, lags[-1])
        idle.append(p99(asyncio.run(_lags(0, seconds, None))))
    note = f"longest {longest * 1e3:.1f} ms; {median(idle) * 1e3:.1f} ms at p99 with no run"
    limit = f"{LONGEST_STALL * 1e3:g} ms"
    name = f"stall of the asyncio loop, {runs} runs, p99"
    return [row(name, limit, busy, [LONGEST_STALL] * len(busy), target=1, note=note)]
