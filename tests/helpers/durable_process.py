"""A process that executes submitted runs, to be killed; it forks itself for each line on its standard input.

A line is a JSON object: what is to be submitted. To start Python takes most of a second, to fork some
milliseconds. Each call of a model is noted in a file, as a provider would count it; see `helpers.call_notes`.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any

import trio

from helpers.call_notes import Notes, noting
from ultra import MultiLLMOrchestrator, RetryPolicy, SqliteJournal
from ultra.errors import MissingExtra
from ultra.messages.results import Completion, Usage
from ultra.stores.journal_contract import RunJournal, RunState

LEASE = 0.3
STRATEGIES: tuple[dict[str, Any], ...] = (
    {},
    {"stages": ["initial", "synthesis"]},
    {"stages": ["initial"], "samples": 2},
    {"strategy": "vote"},
    {"strategy": "best_of"},
)


class CountedModel:
    """Answers in pieces, after short waits; `name` and the prompt decide what."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self._notes = Notes(folder)
        self._random = Random(name)

    async def stream(self, prompt: str, **options: object) -> Any:
        self._notes.begun(prompt)
        is_whole = False
        try:
            pieces = [f"{self.name} ", "says: ", f"{len(prompt)}", " characters."]
            for piece in pieces:
                await trio.sleep(self._random.random() * 0.006)
                yield piece
            is_whole = True
            yield Completion("".join(pieces), usage=Usage(3, 4), finish_reason="stop")
        finally:
            if not is_whole:  # nobody wants it any more; a process that is killed does not come here
                self._notes.broken_off(prompt)

    async def generate(self, prompt: str, **options: object) -> Completion:
        raise AssertionError("submitted runs are streamed")


def journal_of(folder: Path, *, lease: float = LEASE) -> RunJournal:
    """Open the journal of such processes: that of the URL in the file `journal`, if there is one."""
    named = folder / "journal"
    if not named.exists():
        found: RunJournal = noting(SqliteJournal, folder)(folder / "runs.db", lease=lease)
        return found
    from ultra.stores.journal_redis import RedisJournal  # noqa: PLC0415 - it needs the extra

    in_redis: RunJournal = noting(RedisJournal, folder)(named.read_text(), lease=lease)
    return in_redis


def orchestrator_of(folder: Path, *, lease: float = LEASE, **settings: Any) -> MultiLLMOrchestrator:
    """Make the orchestrator of such a process; without a cache, so that only the journal has answers."""
    orchestrator = MultiLLMOrchestrator(
        cache_enabled=False,
        journal=journal_of(folder, lease=lease),
        retry=RetryPolicy(max_retries=0),
        **settings,
    )
    for weight, name in enumerate("cba"):
        orchestrator.register_model(name, CountedModel(name, folder), weight=float(weight + 1))
    return orchestrator


async def work(folder: Path, submissions: list[int]) -> None:
    """Submit what is to be, and go on until all runs have ended; print a line for what happens."""
    async with orchestrator_of(folder) as orchestrator:
        print(f"started {os.getpid()}", flush=True)  # noqa: T201 - it is the protocol
        for number in submissions:
            arguments = STRATEGIES[number % len(STRATEGIES)]
            run_id = await orchestrator.submit(
                f"Question {number}?", idempotency_key=f"{number}", **arguments
            )
            print(run_id, flush=True)  # noqa: T201 - as above
        open_states: tuple[RunState, ...] = ("queued", "running")
        while await orchestrator.list_runs(states=open_states, limit=1):  # noqa: ASYNC110 - no event
            await trio.sleep(0.01)
    print("done", flush=True)  # noqa: T201 - as above


def main() -> None:
    """Fork for each line; tell how the child has ended, by the signal or its exit code."""
    with suppress(MissingExtra):  # so that no child need import it
        import_module("ultra.stores.journal_redis")
    for line in sys.stdin:
        given = json.loads(line)
        child = os.fork()
        if not child:
            code = 1
            try:
                trio.run(work, Path(given["folder"]), given["submissions"])
                code = 0
            except BaseException:  # noqa: BLE001 - nothing of the parent must go on here
                traceback.print_exc()
            os._exit(code)
        _, status = os.waitpid(child, 0)
        # The line of a child that was killed may have no end.
        print(f"\nended {os.waitstatus_to_exitcode(status)}", flush=True)  # noqa: T201 - as above


if __name__ == "__main__":
    main()
