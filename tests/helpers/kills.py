"""Kill a process that executes runs, again and again, and look at what its journal then holds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from helpers.call_notes import CallCounts, counted, question_of
from helpers.command_line import environment, programs
from helpers.durable_process import STRATEGIES, CountedModel, journal_of
from ultra import MultiLLMOrchestrator, RetryPolicy
from ultra.durable.execution import read_all
from ultra.errors import JournalUnavailable
from ultra.messages.events import RunCompleted, RunFailed
from ultra.stores.connections import keep_connected

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator
    from random import Random

    from ultra.messages.events import Event
    from ultra.stores.journal_contract import RunRecord

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
        journal = journal_of(self._folder)
        orchestrator = MultiLLMOrchestrator(journal=journal)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_connected, journal)
            async with trio.open_nursery() as followers:
                is_over = False
                while not is_over:
                    is_over = self.over.is_set()  # then the runs are looked for once more
                    for run_id in await self._all_runs(orchestrator):
                        if run_id not in self.read:
                            self.read[run_id] = []
                            followers.start_soon(self._follow, orchestrator, run_id)
                    await trio.sleep(0.02)
                followers.cancel_scope.deadline = trio.current_time() + 20
            nursery.cancel_scope.cancel()

    async def _all_runs(self, orchestrator: MultiLLMOrchestrator) -> list[str]:
        while True:
            with suppress(JournalUnavailable):
                return [record.run_id for record in await orchestrator.list_runs(limit=1000)]
            await trio.sleep(0.1)

    async def _follow(self, orchestrator: MultiLLMOrchestrator, run_id: str) -> None:
        events = self.read[run_id]
        while not (events and isinstance(events[-1], RunCompleted | RunFailed)):
            with suppress(JournalUnavailable):  # of a slow machine
                async with orchestrator.follow(run_id, after=len(events) - 1) as run:
                    async for event in run:
                        events.append(event)
            await trio.sleep(0.01)


@contextmanager
def forking() -> Iterator[subprocess.Popen[str]]:
    """The process that forks those which execute runs."""
    process = subprocess.Popen(
        [programs() / "python", HERE / "durable_process.py"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment({"PYTHONPATH": str(HERE.parent)}),
    )
    with process:
        yield process
        assert process.stdin is not None
        process.stdin.close()  # which ends it
    assert process.returncode == 0


def kill_again_and_again(folder: Path, random: Random, *, kills: int, runs: int) -> dict[str, int]:
    """Submit so many runs to processes, of which so many are killed; check all that must hold.

    Returns counts of what was seen, so that a caller can see that the kills came in the middle.
    """
    follower = Follower(folder)
    journal_of(folder)  # so that the follower finds it
    follower.start()
    accepted: dict[int, str] = {}
    killed: set[int] = set()
    share = -(-runs // max(1, kills))
    numbers = list(range(runs))
    with forking() as process:
        for number in range(kills + 1):
            last = number == kills
            mine = numbers if last else numbers[number * share : (number + 1) * share]
            child, code = execute(process, folder, mine, accepted, None if last else random.random() * 0.15)
            assert code in ({0} if last else {0, -signal.SIGKILL})
            if code:
                killed.add(child)
    follower.over.set()
    follower.join(30)
    assert not follower.is_alive()
    return trio.run(check, folder, accepted, runs, killed, follower.read)


def execute(
    process: subprocess.Popen[str],
    folder: Path,
    submissions: list[int],
    accepted: dict[int, str],
    kill_after: float | None,
) -> tuple[int, int]:
    """Let a process submit and execute runs, and kill it after so many seconds; return it, and its end."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps({"folder": str(folder), "submissions": submissions}) + "\n")
    process.stdin.flush()
    started, _, child = process.stdout.readline().partition(" ")
    assert started == "started"
    timer = threading.Timer(kill_after or 0.0, kill, [int(child)])
    if kill_after is not None:
        timer.start()
    keys = iter(submissions)
    for line in iter(process.stdout.readline, ""):
        if line.startswith("ended "):
            timer.cancel()
            return int(child), int(line.split()[1])
        if line not in {"done\n", "\n"}:
            key = next(keys)
            assert accepted.setdefault(key, line.strip()) == line.strip()
    raise AssertionError("the process that forks has ended")


def kill(process: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


async def check(
    folder: Path, accepted: dict[int, str], runs: int, killed: set[int], read: dict[str, list[Event]]
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
        answers, most = len(await journal.answer_keys(record.run_id)), needed[kind].total()
        # Each needed answer was paid for once; those that a vote makes needless may be broken off.
        assert answers == most or (kind == VOTE and answers <= most), (record, answers)
    counts = counted(folder, {record.run_id: question_of_run(record) for record in records}, killed)
    for number in range(runs):
        check_calls(counts, f"Question {number}?", number % len(STRATEGIES), needed)
    return {
        "interrupted": interrupted,
        "in_flight": counts.in_flight.total(),
        "paid": counts.begun.total(),
        "kills": len(killed),
    }


def question_of_run(record: RunRecord) -> str:
    return question_of(record.spec.request.prompt)


def check_calls(counts: CallCounts, question: str, kind: int, needed: list[Counter[str]]) -> None:
    """Check the calls of a run: at most those needed and those in flight at a kill; none is paid twice."""
    calls, wanted = counts.begun[question], needed[kind].total()
    assert counts.kept[question] <= wanted, (question, counts)
    assert calls <= counts.most(question, wanted), (question, counts)
    if kind != VOTE and not counts.lost[question]:  # a vote breaks off what decides nothing any more
        assert not counts.broken_off[question], (question, counts)
        assert not counts.refused[question], (question, counts)


VOTE = 3


async def calls_needed(folder: Path) -> list[Counter[str]]:
    """Return how often each model is called in a run of each of `STRATEGIES` that nothing interrupts."""
    found = []
    for number, arguments in enumerate(STRATEGIES):
        own = folder / f"plain-{number}"
        own.mkdir()
        orchestrator = MultiLLMOrchestrator(cache_enabled=False, retry=RetryPolicy(max_retries=0))
        for weight, name in enumerate("cba"):
            orchestrator.register_model(name, CountedModel(name, own), weight=float(weight + 1))
        async with orchestrator, orchestrator.stream_responses(f"Question {number}?", **arguments) as run:
            await run.result()
        found.append(counted(own, {}, set()).begun)
    return found
