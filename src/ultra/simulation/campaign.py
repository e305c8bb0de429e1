"""Run many seeds, spread over processes, add up what they came to, and compare traces between processes."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from typing import TYPE_CHECKING, Final

from msgspec import Struct, field

from ultra.errors import BadCall
from ultra.simulation.one_seed import run_seed
from ultra.simulation.record import GUARANTEES, Violation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.synchronize import Event

__all__ = ["Campaign", "run_campaign"]

CHUNK: Final = 50
"""How many seeds a process runs in one go. The first of them runs a second time, with another chunk."""

SEEDS_BETWEEN_COLLECTIONS: Final = 25


class Campaign(Struct):
    """What some seeds came to.

    Attributes:
        seeds: how many were run.
        seconds: the real time that this took.
        messages: how many were sent.
        faults: how many were injected, by kind.
        checks: how many were made, by guarantee.
        violations: the guarantees that did not hold.
        digests: of the traces of some seeds.
    """

    seeds: int = 0
    seconds: float = 0.0
    messages: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    checks: dict[int, int] = field(default_factory=lambda: dict.fromkeys(GUARANTEES, 0))
    violations: list[Violation] = field(default_factory=list)
    digests: dict[int, str] = field(default_factory=dict)

    @property
    def seeds_per_second(self) -> float:
        """The speed of all processes together."""
        return self.seeds / self.seconds if self.seconds else 0.0

    def add(self, other: Campaign) -> None:
        """Add what other seeds came to. Compare the digests of seeds that both have run."""
        self.seeds += other.seeds
        self.messages += other.messages
        for kind, count in other.faults.items():
            self.faults[kind] = self.faults.get(kind, 0) + count
        for guarantee, count in other.checks.items():
            self.checks[guarantee] += count
        self.violations += other.violations
        for seed, digest in other.digests.items():
            self._compare(seed, digest)

    def _compare(self, seed: int, digest: str) -> None:
        known = self.digests.get(seed)
        if known is None:
            self.digests[seed] = digest
            return
        self.checks[12] += 1
        if known != digest:
            text = f"the traces of two runs differ: {known} and {digest}"
            self.violations.append(Violation(seed, 12, text, 0.0, []))


def run_campaign(
    start: int,
    seeds: int,
    *,
    processes: int | None = None,
    on_progress: Callable[[Campaign], None] = lambda _: None,
) -> Campaign:
    """Run `seeds` seeds from `start` on.

    Processes are spawned, so a script that calls this needs the usual ``if __name__ == "__main__":``. A
    KeyboardInterrupt waits for the seeds that are running, and is then raised.

    Args:
        start: the first seed.
        seeds: how many to run.
        processes: how many to use; None uses one for each processor.
        on_progress: called with the sum so far, after each chunk of seeds.

    Raises:
        BadCall: a number is below 1, or `start` is below 0.
    """
    processes = processes if processes is not None else os.cpu_count() or 1
    if start < 0 or seeds < 1 or processes < 1:
        raise BadCall(
            f"start={start}, seeds={seeds}, processes={processes} is not allowed; "
            "start must be 0 or more, the others 1 or more"
        )
    began = time.perf_counter()
    whole = Campaign()
    chunks = list(_chunks(start, seeds))
    alone = processes == 1 or len(chunks) == 1
    results = map(_run_chunk, chunks) if alone else _in_processes(chunks, processes)
    for result in results:
        whole.add(result)
        whole.seconds = time.perf_counter() - began
        on_progress(whole)
    whole.violations.sort(key=lambda violation: (violation.seed, violation.time))
    return whole


def _chunks(start: int, seeds: int) -> Iterator[tuple[range, int]]:
    """Yield the seeds of each chunk, and the one seed of another chunk that it repeats."""
    firsts = range(start, start + seeds, CHUNK)
    for number, first in enumerate(firsts):
        yield range(first, min(first + CHUNK, start + seeds)), firsts[number - 1]


def _in_processes(chunks: list[tuple[range, int]], processes: int) -> Iterator[Campaign]:
    # Spawned, not forked: a new interpreter has its own hash seed, so a trace that depends on it differs.
    context = get_context("spawn")
    stop = context.Event()
    pool = ProcessPoolExecutor(
        min(processes, len(chunks)), mp_context=context, initializer=_begin, initargs=(stop,)
    )
    try:
        with _interrupts_delayed():
            waiting = [pool.submit(_run_chunk, chunk) for chunk in chunks]
        for done in as_completed(waiting):
            yield done.result()
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


@contextmanager
def _interrupts_delayed() -> Iterator[None]:
    """Let Ctrl-C wait for the end of the block.

    A pool that is interrupted while it starts its processes does not know all of them. The processes
    inherit that SIGINT is blocked: only the process that runs the campaign handles it.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_stop: Event | None = None
"""In a process of the pool: set when the rest of the seeds is not wanted any more."""


def _begin(stop: Event) -> None:
    """Prepare a process of the pool. It ignores Ctrl-C, which the process of the campaign handles."""
    global _stop  # noqa: PLW0603 - this is how a pool tells its processes
    _stop = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Run by itself, the collector would go through all that a simulation still records.
    gc.freeze()
    gc.disable()


def _end_with_parent() -> None:
    """End this process when the campaign's process is killed: otherwise it would wait for work for ever."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _run_chunk(chunk: tuple[range, int]) -> Campaign:
    """Run the seeds of one chunk. This runs in a process of the pool."""
    seeds, repeated = chunk
    part = Campaign()
    for seed in seeds:
        if _stop is not None and _stop.is_set():
            break
        report = run_seed(seed, digest=seed == seeds[0])
        part.add(
            Campaign(
                seeds=1,
                messages=report.messages,
                faults=report.faults,
                checks=report.checks,
                violations=report.violations,
            )
        )
        if report.digest:
            part.digests[seed] = report.digest
        if not seed % SEEDS_BETWEEN_COLLECTIONS:
            gc.collect()
    again = run_seed(repeated, digest=True).digest
    part._compare(repeated, again)  # noqa: SLF001 - its own
    return part
