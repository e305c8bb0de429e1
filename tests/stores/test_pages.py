"""What is large comes out of a journal in pages, and what is removed goes in pieces."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from stores.test_journals import SPEC
from ultra.durable.execution import ending_of
from ultra.messages.events import Chunk, RunFailed
from ultra.messages.request import ModelRequest
from ultra.stores import open_journal
from ultra.stores.journal_contract import PAGE_BYTES, Claim, Retention, RunRecord
from ultra.stores.journal_memory import MemoryJournal

if TYPE_CHECKING:
    from pathlib import Path

    from ultra.stores.journal_contract import RunJournal

TEXT = "x" * 8_000


@pytest.fixture(params=["sqlite", "redis", "memory"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> RunJournal:
    if request.param == "redis":
        return open_journal(request.getfixturevalue("url"), retention=Retention(bytes=1))
    where = "memory" if request.param == "memory" else f"sqlite:///{tmp_path}/runs.db"
    return open_journal(where, retention=Retention(bytes=1))


async def test_large_events_come_in_pages(journal: RunJournal) -> None:
    claim = await journal.add(RunRecord(run_id="r", spec=SPEC), "me")
    assert isinstance(claim, Claim)
    chunks = [Chunk(run_id="r", seq=seq, stage="initial", model_name="a", text=TEXT) for seq in range(200)]
    await journal.append(claim.lease, chunks)
    after, sizes = -1, []
    while page := await journal.read("r", after):
        after = page[-1].seq
        sizes.append(sum(len(event.text) for event in page if isinstance(event, Chunk)))
    assert after == 199
    assert max(sizes) <= PAGE_BYTES + len(TEXT)
    assert len(sizes) == 7


async def test_large_runs_are_listed_in_pages_and_pruned(journal: RunJournal) -> None:
    large = replace(SPEC, request=ModelRequest.of("y" * 6_000_000))
    names = [f"r{number}" for number in range(7)]
    for name in names:
        claim = await journal.add(RunRecord(run_id=name, spec=large), "me")
        assert isinstance(claim, Claim)
        event = RunFailed(run_id=name, error="X", message="y")
        await journal.append(claim.lease, [event], ending_of(event))
    pages, before = [], None
    while page := await journal.list_runs(before=before):
        before = page[-1].run_id
        pages.append([record.run_id for record in page])
    assert [name for page in pages for name in page] == names[::-1]
    if not isinstance(journal.inner, MemoryJournal):  # type: ignore[attr-defined] # it has them anyway
        assert max(map(len, pages)) == 3
    assert await journal.prune() == 7
    assert await journal.list_runs() == []
