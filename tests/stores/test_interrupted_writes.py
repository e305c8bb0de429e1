"""A KeyboardInterrupt in the middle of writing to the SQLite journal: others go on writing."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
import trio

from ultra.messages.request import ModelRequest
from ultra.messages.runs import RunSpec, StrategySpec
from ultra.stores.journal_contract import RunRecord
from ultra.stores.journal_sqlite import SqliteJournal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SPEC = RunSpec(request=ModelRequest.of("?"), models=("gpt",), strategy=StrategySpec("vote"), secret=b"")


def run(name: str) -> RunRecord:
    return RunRecord(run_id=name, spec=SPEC)


def interrupted(journal: SqliteJournal, use: int, interrupt: Callable[[], None]) -> None:
    """Interrupt the journal right before this transaction, counted from 1."""
    limiter, uses = journal._writer.limiter, 0

    def interrupting() -> trio.CapacityLimiter:
        nonlocal uses
        uses += 1
        if uses == use:
            interrupt()
        return limiter()

    journal._writer.limiter = interrupting  # type: ignore[method-assign]


def test_a_journal_that_ctrl_c_interrupted_writes_what_comes_later(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "runs.db")
    interrupted(journal, 1, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        trio.run(journal.add, run("interrupted"))

    async def later() -> list[str]:
        with trio.fail_after(5):
            await journal.add(run("later"))
        return [each.run_id for each in await journal.list_runs()]

    assert trio.run(later) == ["later"]


async def test_those_that_wait_for_a_write_which_is_interrupted_are_written_all_the_same(
    tmp_path: Path,
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    async def add(name: str) -> None:
        try:
            await journal.add(run(name))
        except KeyboardInterrupt:
            lost.append(name)

    lost: list[str] = []
    journal = SqliteJournal(tmp_path / "runs.db")
    interrupted(journal, 2, interrupt)  # the first transaction is of one run, the next of those behind it
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            for name in ("a", "b", "c", "d"):
                nursery.start_soon(add, name)
    kept = {each.run_id for each in await journal.list_runs()}
    assert len(lost) == 1
    assert kept == {"a", "b", "c", "d"} - {*lost}
