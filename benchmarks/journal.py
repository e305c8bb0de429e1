"""What a journal costs: submitted runs beside plain ones."""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import trio

from benchmarks.harness import Row, compare
from benchmarks.runs import NAMES, QUESTION, instant
from ultra import MultiLLMOrchestrator, SqliteJournal

if TYPE_CHECKING:
    from collections.abc import Callable

    from ultra.stores.journal_contract import RunJournal

__all__ = ["journaled_runs", "plain_run", "submitted_run"]

AT_ONCE = 10
"""Runs that go on side by side, and share what is written at once."""


async def plain_run(count: int) -> float:
    """Return the seconds that a streamed run takes."""
    async with MultiLLMOrchestrator(cache_enabled=False) as orchestrator:
        for name in NAMES:
            orchestrator.register_model(name, instant)

        async def run() -> None:
            async with orchestrator.stream_responses(QUESTION) as stream:
                async for _ in stream:
                    pass

        return await _timed(count, run)


async def submitted_run(count: int, make: Callable[[], RunJournal]) -> float:
    """Return the seconds that a run takes that is submitted and followed."""
    async with MultiLLMOrchestrator(cache_enabled=False, journal=make()) as orchestrator:
        for name in NAMES:
            orchestrator.register_model(name, instant)

        async def run() -> None:
            async with orchestrator.follow(await orchestrator.submit(QUESTION)) as follower:
                async for _ in follower:
                    pass

        return await _timed(count, run)


async def _timed(count: int, run: Callable[[], object]) -> float:
    """Return the seconds a run, of which `AT_ONCE` go on at once."""
    start = time.perf_counter()
    for _ in range(-(-count // AT_ONCE)):
        async with trio.open_nursery() as nursery:
            for _ in range(AT_ONCE):
                nursery.start_soon(run)  # type: ignore[arg-type] # it is async
    return (time.perf_counter() - start) / (-(-count // AT_ONCE) * AT_ONCE)


def journaled_runs(*, brief: bool) -> list[Row]:
    """Runs of seven calls, submitted and followed, against the same runs streamed."""
    count = AT_ONCE if brief else 200
    with tempfile.TemporaryDirectory() as folder:

        def in_file(synchronous: Literal["normal", "full"]) -> RunJournal:
            return SqliteJournal(
                Path(folder) / f"{synchronous}-{time.monotonic_ns()}.db", synchronous=synchronous
            )

        rows = []
        for synchronous in ("normal", "full"):
            make = partial(in_file, synchronous)
            rows += compare(
                f"a submitted run, SQLite, synchronous {synchronous}",
                lambda make=make: trio.run(submitted_run, count, make),  # type: ignore[misc]
                {"the same run, streamed": (lambda: trio.run(plain_run, count), None)},
                rounds=1 if brief else 7,
            )
        return rows
