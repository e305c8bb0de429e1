"""A disk that is full in the middle of a run: nothing is accepted, and the run waits until there is room."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from helpers.run_events import orchestrator_of
from ultra import JournalUnavailable
from ultra.messages.events import RunCompleted
from ultra.stores.journal_sqlite import SqliteJournal
from ultra.testing import FakeModel

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path


class SmallDisk(SqliteJournal):
    """A journal on a disk with room for so many pages, as SQLite sees it."""

    pages = 2**30

    def _connect(self) -> sqlite3.Connection:
        connection = super()._connect()
        connection.execute(f"PRAGMA max_page_count = {self.pages}")
        return connection


async def test_a_run_waits_while_the_disk_is_full_and_ends_when_there_is_room(tmp_path: Path) -> None:
    journal = SmallDisk(tmp_path / "runs.db")
    model = FakeModel("word " * 20_000, name="a", gated=True)
    async with orchestrator_of(model, journal=journal) as orchestrator:
        run_id = await orchestrator.submit("?", ["initial"])
        journal.pages = 1  # no more than there are
        await journal.aclose()  # it is opened again by the next use
        model.gate.set()
        with trio.fail_after(30):
            with pytest.raises(JournalUnavailable, match="full"):
                await orchestrator.submit("x" * 100_000)
            assert not (await orchestrator.get_run(run_id)).has_ended
            assert len(await orchestrator.list_runs()) == 1

            journal.pages = 2**30
            await journal.aclose()
            async with orchestrator.follow(run_id) as run:
                events = [event async for event in run]
    assert isinstance(events[-1], RunCompleted)
    assert [event.seq for event in events] == list(range(len(events)))
    assert len(model.calls) == 1  # the answer is not paid for twice
