"""Kill a process that executes runs, again and again, and look at what its journal then holds."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import trio

from helpers.command_line import environment, warm_python
from helpers.durable_process import STRATEGIES, CountedModel, journal_of
from ultra import MultiLLMOrchestrator, RetryPolicy
from ultra.durable.execution import read_all
from ultra.messages.events import RunCompleted, RunFailed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

    from helpers.warm_python import ForkedProcess
    from ultra.messages.events import Event

HERE = Path(__file__).parent


class Follower(threading.Thread):
    """Reads the events of the runs as a client would: from another process than the one that is killed."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self._folder = folder
        self.read: dict[str, list[Event]] = {}
        self.over = threading.Event()

    def run(self) -> None:
        trio.run(self._follow_all)

    async def _follow_all(self) -> None:
        orchestrator = MultiLLMOrchestrator(journal=journal_of(self._folder))
        async with trio.open_nursery() as nursery:
            while not self.over.is_set():
                for record in await orchestrator.list_runs(limit=1000):
                    if record.run_id not in self.read:
                        self.read[record.run_id] = []
                        nursery.start_soon(self._follow, orchestrator, record.run_id)
                await trio.sleep(0.02)
            nursery.cancel_scope.deadline = trio.current_time() + 20

    async def _follow(self, orchestrator: MultiLLMOrchestrator, run_id: str) -> None:
        async with orchestrator.follow(run_id) as run:
            async for event in run:
                self.read[run_id].append(event)


@contextmanager
def started(folder: Path, submissions: list[int]) -> Iterator[tuple[ForkedProcess, TextIO]]:
    """Start a process that executes these submissions; yields it, and what it prints."""
    arguments = json.dumps({"folder": str(folder), "submissions": submissions})
    reading, writing = os.pipe()
    with open(reading, encoding="utf-8") as printed, open(os.devnull, "rb") as nothing:  # noqa: PTH123
        try:
            process = warm_python().start_script(
                HERE / "durable_process.py", arguments, environment(), [nothing.fileno(), writing, 2]
            )
        finally:
            os.close(writing)
        try:
            yield process, printed
        finally:
            process.kill()
            trio.run(process.wait)


def kill_again_and_again(folder: Path, random: Random, *, kills: int, runs: int) -> dict[str, int]:
    """Submit so many runs to processes, of which so many are killed; check all that must hold.

    Returns counts of what was seen, so that a caller can see that the kills came in the middle.
    """
    follower = Follower(folder)
    journal_of(folder)  # so that the follower finds it
    follower.start()
    accepted: dict[int, str] = {}
    share = -(-runs // max(1, kills))
    numbers = list(range(runs))
    for number in range(kills + 1):
        last = number == kills
        mine = numbers if last else numbers[number * share : (number + 1) * share]
        with started(folder, mine) as (process, printed):
            assert printed.readline() == "started\n"
            if not last:
                threading.Timer(random.random() * 0.15, process.kill).start()
            for key, line in zip(mine, iter(printed.readline, ""), strict=False):
                if line.endswith("\n") and line != "done\n":
                    assert accepted.setdefault(key, line.strip()) == line.strip()
            printed.read()
            code = trio.run(process.wait)
        assert code in ({0} if last else {0, -signal.SIGKILL})
    follower.over.set()
    follower.join(30)
    assert not follower.is_alive()
    return trio.run(check, folder, accepted, runs, kills, follower.read)


async def check(
    folder: Path, accepted: dict[int, str], runs: int, kills: int, read: dict[str, list[Event]]
) -> dict[str, int]:
    """Check that each accepted run ended once, that readers got what is in the journal, and what was paid."""
    journal = journal_of(folder)
    records = await journal.list_runs(limit=10_000)
    assert len(records) == runs == len(accepted)
    assert {record.run_id for record in records} == set(accepted.values())
    interrupted = 0
    needed = await calls_needed(folder)
    for record in records:
        events = await read_all(journal, record.run_id)
        ends = [event for event in events if isinstance(event, RunCompleted | RunFailed)]
        assert record.state == "completed", record
        assert ends == events[-1:]
        assert [event.seq for event in events] == list(range(len(events))) == list(range(record.events))
        assert read[record.run_id] == events
        interrupted += record.executions - 1
        kind = int(record.idempotency_key or 0) % len(STRATEGIES)
        answers, most = len(await journal.answers(record.run_id)), needed[kind].total()
        # Each needed answer was paid for once; those that a vote makes needless may be broken off.
        assert answers == most or (kind == VOTE and answers <= most), (record, answers)
    paid = Counter((folder / "calls").read_text().split())
    wanted: Counter[str] = Counter()
    for number in range(runs):
        wanted += needed[number % len(STRATEGIES)]
    # A kill loses at most the calls that were in flight: for each run that it interrupted, those of one step.
    most_in_flight = max(STRATEGY_WIDTH)
    assert paid.total() >= wanted.total()
    assert paid.total() <= wanted.total() + most_in_flight * interrupted, (paid, wanted, interrupted)
    return {"interrupted": interrupted, "paid": paid.total(), "needed": wanted.total(), "kills": kills}


VOTE = 3
STRATEGY_WIDTH = (3, 3, 6, 3, 3)
"""How many calls of a run of each of `STRATEGIES` are in flight at once at most."""


async def calls_needed(folder: Path) -> list[Counter[str]]:
    """Return how often each model is called in a run of each of `STRATEGIES` that nothing interrupts."""
    found = []
    for number, arguments in enumerate(STRATEGIES):
        own = folder / f"plain-{number}"
        own.mkdir()
        orchestrator = MultiLLMOrchestrator(cache_enabled=False, retry=RetryPolicy(max_retries=0))
        for weight, name in enumerate("cba"):
            orchestrator.register_model(name, CountedModel(name, own / "calls"), weight=float(weight + 1))
        async with orchestrator, orchestrator.stream_responses(f"Question {number}?", **arguments) as run:
            await run.result()
        found.append(Counter((own / "calls").read_text().split()))
    return found
