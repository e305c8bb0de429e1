"""A process that executes submitted runs, to be killed; its argument is a JSON object.

Each call of a model is noted in a file before it is answered, as a provider would count it.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from random import Random
from typing import Any

import trio

from ultra import MultiLLMOrchestrator, RetryPolicy, SqliteJournal
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

    def __init__(self, name: str, calls: Path) -> None:
        self.name = name
        self._calls = os.open(calls, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._random = Random(name)

    async def stream(self, prompt: str, **options: object) -> Any:
        os.write(self._calls, f"{self.name}\n".encode())
        pieces = [f"{self.name} ", "says: ", f"{len(prompt)}", " characters."]
        for piece in pieces:
            await trio.sleep(self._random.random() * 0.006)
            yield piece
        yield Completion("".join(pieces), usage=Usage(3, 4), finish_reason="stop")

    async def generate(self, prompt: str, **options: object) -> Completion:
        raise AssertionError("submitted runs are streamed")


def journal_of(folder: Path, *, lease: float = LEASE) -> RunJournal:
    """Open the journal of such processes: that of the URL in the file `journal`, if there is one."""
    named = folder / "journal"
    if not named.exists():
        return SqliteJournal(folder / "runs.db", lease=lease)
    from ultra.stores.journal_redis import RedisJournal  # noqa: PLC0415 - it needs the extra

    return RedisJournal(named.read_text(), lease=lease)


def orchestrator_of(folder: Path, *, lease: float = LEASE, **settings: Any) -> MultiLLMOrchestrator:
    """Make the orchestrator of such a process; without a cache, so that only the journal has answers."""
    orchestrator = MultiLLMOrchestrator(
        cache_enabled=False,
        journal=journal_of(folder, lease=lease),
        retry=RetryPolicy(max_retries=0),
        **settings,
    )
    for weight, name in enumerate("cba"):
        orchestrator.register_model(name, CountedModel(name, folder / "calls"), weight=float(weight + 1))
    return orchestrator


async def work(folder: Path, submissions: list[int]) -> None:
    """Submit what is to be, and go on until all runs have ended; print a line for what happens."""
    async with orchestrator_of(folder) as orchestrator:
        print("started", flush=True)  # noqa: T201 - it is the protocol
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


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    trio.run(work, Path(given["folder"]), given["submissions"])
