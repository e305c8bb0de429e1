"""Many simulations: spread over processes, added up, and compared from process to process."""

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
from ultra.simulation.record import GUARANTEES, Violation
from ultra.simulation.simulation import simulate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.synchronize import Event

__all__ = ["Campaign", "run_campaign"]

CHUNK: Final = 50
"""Seeds that a process runs in one go; the first of them runs a second time, in another process."""

SEEDS_BETWEEN_COLLECTIONS: Final = 25


class Campaign(Struct):
    """What came of some seeds. `faults` counts by kind, `checks` by guarantee; times are real seconds."""

    seeds: int = 0
    seconds: float = 0.0
    messages: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    checks: dict[int, int] = field(default_factory=lambda: dict.fromkeys(GUARANTEES, 0))
    violations: list[Violation] = field(default_factory=list)
    digests: dict[int, str] = field(default_factory=dict)

    @property
    def seeds_per_second(self) -> float:
        """How fast it went, all processes together."""
        return self.seeds / self.seconds if self.seconds else 0.0

    def add(self, other: Campaign) -> None:
        """Take in what came of other seeds; digests of seeds that both have run are compared."""
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
    """Simulate `seeds` seeds from `start` on, in so many processes (default: one for each processor).

    `on_progress` is called with what there is so far, whenever there is more. Processes are spawned, so
    a script that calls this needs the usual ``if __name__ == "__main__":``. Interrupted, it waits for the
    seeds that are running.

    Raises:
        BadCall: a number is below 1, or `start` below 0.
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
    """The seeds of each chunk, and the one of another chunk that it repeats."""
    firsts = range(start, start + seeds, CHUNK)
    for number, first in enumerate(firsts):
        yield range(first, min(first + CHUNK, start + seeds)), firsts[number - 1]


def _in_processes(chunks: list[tuple[range, int]], processes: int) -> Iterator[Campaign]:
    # Spawned, not forked: a fresh interpreter has a hash seed of its own, so that a trace which depends
    # on that shows it.
    context = get_context("spawn")
    stop = context.Event()
    pool = ProcessPoolExecutor(
        min(processes, len(chunks)), mp_context=context, initializer=_begin, initargs=(stop,)
    )
    try:
        with _interrupts_put_off():
            waiting = [pool.submit(_run_chunk, chunk) for chunk in chunks]
        for done in as_completed(waiting):
            yield done.result()
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


@contextmanager
def _interrupts_put_off() -> Iterator[None]:
    """Let Ctrl-C wait for the end of the block.

    A pool that is interrupted while it starts its processes does not know of all of them. The processes
    inherit that SIGINT is blocked: it is for the one that runs the campaign.
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
"""In a process of the pool: whether nobody wants to know the rest."""


def _begin(stop: Event) -> None:
    """Get a process of the pool ready. Ctrl-C is for the process that runs the campaign."""
    global _stop  # noqa: PLW0603 - this is how a pool tells its processes
    _stop = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # By itself it would look at all that a simulation is still recording.
    gc.freeze()
    gc.disable()


def _end_with_parent() -> None:
    """End this process when the campaign's is killed: a pool's processes would wait for work for ever."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _run_chunk(chunk: tuple[range, int]) -> Campaign:
    """Simulate the seeds of one chunk. Runs in a process of the pool."""
    seeds, repeated = chunk
    part = Campaign()
    for seed in seeds:
        if _stop is not None and _stop.is_set():
            break
        report = simulate(seed, digest=seed == seeds[0])
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
    again = simulate(repeated, digest=True).digest
    part._compare(repeated, again)  # noqa: SLF001 - its own
    return part
