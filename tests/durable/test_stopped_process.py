"""A process that stands still for longer than its leases hold, and then goes on: each run still ends once."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from contextlib import closing
from typing import IO, TYPE_CHECKING

import pytest
import trio

from helpers.durable_process import journal_of
from helpers.kills import forking
from ultra.durable.execution import read_all
from ultra.messages.events import RunCompleted

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from ultra.messages.events import Event

RUNS = 20

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="processes cannot be stopped here")


def begin(process: subprocess.Popen[str], folder: Path, numbers: list[int]) -> IO[str]:
    """Have runs submitted and executed; return what the process tells."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps({"folder": str(folder), "submissions": numbers}) + "\n")
    process.stdin.flush()
    return process.stdout


def until(told: IO[str], beginning: str) -> str:
    """Return the next line that begins so."""
    return next(line for line in told if line.startswith(beginning))


def stop_between_transactions(process: int, path: Path) -> None:
    """Stop a process. One that is stopped while it writes would keep the file locked."""
    while True:
        os.kill(process, signal.SIGSTOP)
        with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as file:
            try:
                file.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                os.kill(process, signal.SIGCONT)
                time.sleep(0.001)
                continue
            return


async def runs_of(folder: Path) -> tuple[dict[str, list[Event]], int]:
    """The events of all runs, and how often a run was taken up."""
    journal = journal_of(folder)
    runs = await journal.list_runs(limit=1000)
    events = {run.run_id: await read_all(journal, run.run_id) for run in runs}
    await journal.aclose()
    return events, sum(run.executions - 1 for run in runs)


def test_a_process_that_was_stopped_finds_its_runs_taken_up_and_ends_none_of_them_again(
    tmp_path: Path,
) -> None:
    with forking() as one, forking() as other:
        told = begin(one, tmp_path, list(range(RUNS)))
        stopped = int(until(told, "started ").split()[1])
        for _ in range(RUNS):
            next(told)  # the id of one that was accepted
        stop_between_transactions(stopped, tmp_path / "runs.db")
        try:
            until(begin(other, tmp_path, []), "done")  # it waits for the leases, and ends all
            before, taken_up = trio.run(runs_of, tmp_path)
        finally:
            os.kill(stopped, signal.SIGCONT)
        until(told, "done")
        assert until(told, "ended ") == "ended 0\n"

    assert len(before) == RUNS
    assert taken_up > 0
    for events in before.values():
        assert [event.seq for event in events] == list(range(len(events)))
        assert [isinstance(event, RunCompleted) for event in events] == [False] * (len(events) - 1) + [True]
    assert trio.run(runs_of, tmp_path) == (before, taken_up)  # what it wrote later was refused
