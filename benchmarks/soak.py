"""A soak: very many runs in one process, one call in ten failing; does anything grow?

    python -m benchmarks.soak --runs 200000 --loop trio

Runs are made as services make them: whole, streamed, streamed and left in the middle, cancelled; some
ask what another one is asking. One model answers, one streams and breaks off, one blocks a thread, one
is behind HTTP. Prints memory in the middle and at the end; tasks, threads, sockets and open files before
and after; and an account of all runs. Exits with 1 where something grew or a run is not accounted for.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import sys
import threading
import time
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Final, Literal

import anyio
from anyio.lowlevel import checkpoint
from msgspec import Struct

from benchmarks.http_server import chat_server
from ultra import MultiLLMOrchestrator, QuorumNotReached, RetryPolicy
from ultra.clients import connect
from ultra.messages.events import Event, RunCompleted, RunFailed
from ultra.stores.memory import MemoryCache

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ultra import OrchestrationResult

__all__ = ["Report", "soak"]

MOST_GROWTH: Final = 0.02
"""How much the second half of the runs may add to the memory that the first half ended with."""

FAULTS: Final = 0.1
"""The part of the calls that fail."""

FEW: Final = 256
"""How many answers of a model the cache keeps."""

PATIENCE: Final = 15.0
"""Seconds to wait for the end of what lasts a little longer: trio keeps idle threads for ten."""

Outcome = Literal["success", "degraded", "failed", "left", "cancelled"]


class Report(Struct, kw_only=True):
    """What a soak found. Memory is resident bytes; the pairs are before the first and after the last run.

    `left` runs were streams whose reader went away in the middle. `untidy` streams had no last event, or
    more than one, or a gap in their numbers.
    """

    runs: int
    seconds: float = 0.0
    calls: int = 0
    faults: int = 0
    success: int = 0
    degraded: int = 0
    failed: int = 0
    left: int = 0
    cancelled: int = 0
    untidy: int = 0
    memory_at_half: int = 0
    memory_at_end: int = 0
    tasks: tuple[int, int] = (0, 0)
    threads: tuple[int, int] = (0, 0)
    sockets: tuple[int, int] = (0, 0)
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
        for what in ("tasks", "threads", "sockets", "files"):
            before, after = getattr(self, what)
            if after > before:
                found.append(f"{after - before} {what} more than before")
        if self.success + self.degraded + self.failed + self.left + self.cancelled != self.runs:
            found.append("some runs are not accounted for")
        if self.untidy:
            found.append(f"{self.untidy} streams without exactly one last event")
        return found


class Faults:
    """Lets one call in ten fail, and counts."""

    def __init__(self, report: Report, random: Random) -> None:
        self._report = report
        self._random = random
        self._lock = threading.Lock()  # a client that blocks is called in many threads

    def call(self) -> None:
        """Count one call; raise `ConnectionError` if it is to fail."""
        with self._lock:
            self._report.calls += 1
            fails = self._random.random() < FAULTS
            self._report.faults += fails
        if fails:
            raise ConnectionError("injected")


class Plain:
    """Answers in one piece."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    async def generate(self, prompt: str) -> str:
        await checkpoint()
        self._faults.call()
        return f"an answer to {prompt[:20]}"


class Streaming(Plain):
    """Answers word by word; what fails, fails in the middle."""

    async def stream(self, prompt: str) -> AsyncIterator[str]:
        for number, word in enumerate(f"an answer to {prompt[:20]}".split()):
            await checkpoint()
            if number == 1:
                self._faults.call()
            yield f"{word} "


class Blocking:
    """Answers in a thread."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    def generate(self, prompt: str) -> str:
        self._faults.call()
        return f"an answer to {prompt[:20]}"


class Remote:
    """Answers over HTTP, by a client of Ultra's own."""

    async_library = "trio"
    reopens = True

    def __init__(self, faults: Faults, url: str) -> None:
        self._faults = faults
        self._client: Any = connect("openai:bench", base_url=url, api_key="none")

    async def generate(self, prompt: str) -> object:
        self._faults.call()
        return await self._client.generate(prompt)

    async def aclose(self) -> None:
        await self._client.aclose()


async def soak(
    runs: int, *, at_once: int = 20, seed: int = 0, url: str | None = None, blocking: bool = False
) -> Report:
    """Make `runs` runs, `at_once` at a time, and report; on trio or asyncio.

    `url` is of an HTTP server that speaks OpenAI's protocol, and `blocking` adds a client that blocks.
    """
    report, random = Report(runs=runs), Random(seed)
    faults = Faults(report, random)
    before = _holdings()
    orchestrator = MultiLLMOrchestrator(
        retry=RetryPolicy(max_retries=1, initial=0),
        cache=MemoryCache(max_entries=FEW),  # full long before the first half is over
        random=random,
    )
    orchestrator.register_model("plain", Plain(faults))
    orchestrator.register_model("streaming", Streaming(faults))
    if blocking:
        orchestrator.register_model("blocking", Blocking(faults))
    near = orchestrator.get_prioritized_models()
    if url is not None:
        orchestrator.register_model("remote", Remote(faults, url))
    start = time.perf_counter()
    async with orchestrator:
        make = _Runs(orchestrator, report, near, random)
        await make.all(range(runs // 2), at_once)
        report.memory_at_half = _memory()
        await make.all(range(runs // 2, runs), at_once)
        report.memory_at_end = _memory()
    report.seconds = time.perf_counter() - start
    after = await _settled(before)
    report.tasks, report.threads, report.sockets, report.files = zip(before, after, strict=True)
    return report


class _Runs:
    """Makes runs of all kinds. `near`: the models that are asked by most of them."""

    def __init__(
        self, orchestrator: MultiLLMOrchestrator, report: Report, near: list[str], random: Random
    ) -> None:
        self._orchestrator = orchestrator
        self._report = report
        self._near = near
        self._random = random

    async def all(self, numbers: range, at_once: int) -> None:
        """Make the runs with these numbers."""
        pending = iter(numbers)

        async def worker() -> None:
            for number in pending:
                outcome = await self._one(number)
                setattr(self._report, outcome, getattr(self._report, outcome) + 1)

        async with anyio.create_task_group() as tasks:
            for _ in range(at_once):
                tasks.start_soon(worker)

    async def _one(self, number: int) -> Outcome:
        kind = number % 10
        try:
            if kind < 6:
                return await self._whole(number)
            if kind < 9:
                return await self._streamed(number, leaves=kind == 8)
            with anyio.move_on_after(self._random.uniform(0, 0.02)):
                return await self._whole(number)
        except QuorumNotReached:
            return "failed"
        return "cancelled"

    async def _whole(self, number: int) -> Outcome:
        models = None if number % 20 == 0 else self._near  # HTTP costs more than all the rest
        return _outcome(await self._orchestrator.process_responses(f"Question {number}?", models=models))

    async def _streamed(self, number: int, *, leaves: bool) -> Outcome:
        question = f"Question {number - 1}?"  # as the run before, whose answers are kept or under way
        events: list[Event] = []
        async with self._orchestrator.stream_responses(question, models=self._near) as run:
            async for event in run:
                events.append(event)
                if leaves and len(events) == 6:
                    return "left"
            last = [isinstance(event, (RunCompleted, RunFailed)) for event in events]
            tidy = last.count(True) == 1 and [event.seq for event in events] == list(range(len(events)))
            self._report.untidy += not (tidy and last[-1])
            return _outcome(await run.result())


def _outcome(result: OrchestrationResult) -> Outcome:
    return "success" if result.status == "success" else "degraded"


def _holdings() -> tuple[int, int, int, int]:
    """How many tasks, threads, sockets and files there are."""
    files = [entry.readlink().name for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
    sockets = sum(file.startswith("socket:") for file in files)
    return len(anyio.get_running_tasks()), threading.active_count(), sockets, len(files)


async def _settled(before: tuple[int, ...]) -> tuple[int, int, int, int]:
    """What there is when nothing is more than before, or when that took too long."""
    with anyio.move_on_after(PATIENCE):
        while any(new > old for old, new in zip(before, _holdings(), strict=True)):  # noqa: ASYNC110
            # Nobody tells when a thread has ended.
            await anyio.sleep(0.1)
    return _holdings()


def _memory() -> int:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Soak, and print what was found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--runs", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--loop", choices=["trio", "asyncio"], default="trio")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    with chat_server() as url:
        make = partial(soak, arguments.runs, seed=arguments.seed, url=url, blocking=True)
        report = anyio.run(make, backend=arguments.loop)
    for name in report.__struct_fields__:
        print(f"{name}: {getattr(report, name)}")
    print(f"growth: {report.growth:.2%}")
    problems = report.problems()
    print("\n".join(problems) or "nothing grew, and every run is accounted for")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
