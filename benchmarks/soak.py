"""A soak: very many runs in one process, one call in ten failing; does anything grow?

    python -m benchmarks.soak --runs 200000

Prints memory in the middle and at the end, tasks, threads and open files before and after, and an
account of all runs. Exits with 1 where something grew or a run is not accounted for.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import sys
import threading
import time
from pathlib import Path
from random import Random

import trio
from msgspec import Struct

from ultra import MultiLLMOrchestrator, QuorumNotReached, RetryPolicy

__all__ = ["Report", "soak"]

MOST_GROWTH = 0.02
"""How much the second half of the runs may add to the memory that the first half ended with."""


class Report(Struct, kw_only=True):
    """What a soak found. Memory is resident bytes; the pairs are before the first and after the last run."""

    runs: int
    seconds: float = 0.0
    calls: int = 0
    faults: int = 0
    success: int = 0
    degraded: int = 0
    failed: int = 0
    memory_at_half: int = 0
    memory_at_end: int = 0
    tasks: tuple[int, int] = (0, 0)
    threads: tuple[int, int] = (0, 0)
    files: tuple[int, int] = (0, 0)

    @property
    def growth(self) -> float:
        """By what part the memory grew in the second half."""
        return self.memory_at_end / self.memory_at_half - 1

    def problems(self) -> list[str]:
        """What should not be so."""
        found = []
        if self.growth > MOST_GROWTH:
            found.append(f"memory grew by {self.growth:.1%} in the second half")
        for what in ("tasks", "threads", "files"):
            before, after = getattr(self, what)
            if after > before:
                found.append(f"{after - before} {what} more than before")
        if self.success + self.degraded + self.failed != self.runs:
            found.append("some runs are not accounted for")
        return found


class Flaky:
    """Fails one call in ten."""

    def __init__(self, report: Report, random: Random) -> None:
        self.report = report
        self.random = random

    async def generate(self, prompt: str) -> str:
        self.report.calls += 1
        await trio.lowlevel.checkpoint()
        if self.random.random() < 0.1:
            self.report.faults += 1
            raise ConnectionError("injected")
        return f"an answer to {prompt[:20]}"


async def soak(runs: int, *, at_once: int = 20, seed: int = 0) -> Report:
    """Make `runs` runs, `at_once` at a time, each with a question of its own, and report."""
    report, random = Report(runs=runs), Random(seed)
    before = _holdings()
    orchestrator = MultiLLMOrchestrator(retry=RetryPolicy(max_retries=1, initial=0), random=random)
    for name in ("one", "two", "three"):
        orchestrator.register_model(name, Flaky(report, random))
    start = time.perf_counter()
    async with orchestrator:
        await _make_runs(orchestrator, report, range(runs // 2), at_once)
        report.memory_at_half = _memory()
        await _make_runs(orchestrator, report, range(runs // 2, runs), at_once)
        report.memory_at_end = _memory()
    report.seconds = time.perf_counter() - start
    after = _holdings()
    report.tasks, report.threads, report.files = ((old, new) for old, new in zip(before, after, strict=True))
    return report


async def _make_runs(
    orchestrator: MultiLLMOrchestrator, report: Report, numbers: range, at_once: int
) -> None:
    pending = iter(numbers)

    async def worker() -> None:
        for number in pending:
            try:
                result = await orchestrator.process_responses(f"Question {number}?")
            except QuorumNotReached:
                report.failed += 1
                continue
            if result.status == "success":
                report.success += 1
            else:
                report.degraded += 1

    async with trio.open_nursery() as nursery:
        for _ in range(at_once):
            nursery.start_soon(worker)


def _holdings() -> tuple[int, int, int]:
    return (
        trio.lowlevel.current_statistics().tasks_living,
        threading.active_count(),
        len(os.listdir("/proc/self/fd")),
    )


def _memory() -> int:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Soak, and print what was found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--runs", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    report = trio.run(lambda: soak(arguments.runs, seed=arguments.seed))
    for name in report.__struct_fields__:
        print(f"{name}: {getattr(report, name)}")
    print(f"growth: {report.growth:.2%}")
    problems = report.problems()
    print("\n".join(problems) or "nothing grew, and every run is accounted for")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
