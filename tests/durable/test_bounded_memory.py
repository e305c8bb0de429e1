"""What a run of very many events, or a journal of large runs, costs: a piece at a time, and not all of it."""

from __future__ import annotations

import tracemalloc
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from helpers.run_events import orchestrator_of
from ultra.durable.told import Told
from ultra.messages.events import Chunk, RunCompleted
from ultra.messages.request import ModelRequest
from ultra.messages.results import ModelResponse
from ultra.messages.runs import RunSpec, StrategySpec
from ultra.stores.journal_contract import Claim, RunRecord
from ultra.stores.journal_memory import MemoryJournal
from ultra.stores.journal_sqlite import SqliteJournal
from ultra.testing import FakeModel

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ultra.messages.events import Event
    from ultra.stores.journal_contract import Lease, RunJournal

TEXT = "x" * 8_000
EVENTS = 4_000
ALL = EVENTS * len(TEXT)
SPEC = RunSpec(
    request=ModelRequest.of("?"), models=("a",), strategy=StrategySpec("synthesize"), secret=b"s" * 32
)


async def filled(journal: RunJournal, events: int = EVENTS, text: str = TEXT) -> Lease:
    """A run with so many events, which somebody holds."""
    claim = await journal.add(RunRecord(run_id="r", spec=SPEC), "before")
    assert isinstance(claim, Claim)
    chunks = [
        Chunk(run_id="r", seq=seq, stage="initial", model_name="a", text=text, restart=seq % 100 == 0)
        for seq in range(events)
    ]
    await journal.append(claim.lease, chunks)
    return claim.lease


@contextmanager
def at_most(most: int) -> Iterator[None]:
    """Check how much of what is made in the block is there at once."""
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < most


async def test_a_run_is_taken_up_and_followed_in_pieces(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "runs.db")
    await journal.release([await filled(journal)])
    model = FakeModel("Paris.", name="a")
    orchestrator = orchestrator_of(model, journal=journal, cache_enabled=False)
    count, last = 0, None
    with at_most(ALL // 4), trio.fail_after(30):
        async with orchestrator, orchestrator.follow("r") as run:
            async for last in run:  # noqa: B007 - the last one counts
                count += 1
    assert isinstance(last, RunCompleted)
    assert count == last.seq + 1 > EVENTS
    await journal.aclose()


async def test_paid_answers_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "runs.db")
    lease = await filled(journal, events=1)
    paid = ModelResponse(model_name="a", stage="initial", content="x" * 100_000)
    for number in range(200):
        await journal.keep_answer(lease, number.to_bytes(32, "big"), paid)
    await journal.release([lease])
    orchestrator = orchestrator_of(FakeModel("Paris.", name="a"), journal=journal, cache_enabled=False)
    with at_most(200 * 100_000 // 4), trio.fail_after(30):
        async with orchestrator, orchestrator.follow("r") as run:
            assert (await run.result()).status == "success"
    assert len(await journal.answer_keys("r")) > 200
    await journal.aclose()


async def test_an_execution_holds_one_page_of_events(monkeypatch: pytest.MonkeyPatch) -> None:
    pages: list[list[Event]] = []

    class Counting(MemoryJournal):
        async def read(self, run_id: str, after: int = -1, limit: int = 256) -> list[Event]:
            page = await super().read(run_id, after, limit)
            pages.append(page)
            return page

    journal = Counting()
    await journal.release([await filled(journal, events=20_000, text="four")])
    async with orchestrator_of(FakeModel("Paris.", name="a"), journal=journal) as orchestrator:
        with trio.fail_after(30):
            while not (await orchestrator.get_run("r")).has_ended:  # noqa: ASYNC110 - no event
                await trio.sleep(0.005)
    assert sum(map(len, pages)) >= 20_000
    assert max(map(len, pages)) <= 256
    assert len(pages) >= 20_000 // 256


def test_what_was_told_is_known_by_one_digest_for_each_answer() -> None:
    told = Told()
    for number in range(5_000):
        chunk = Chunk(stage="s", model_name=f"m{number % 3}", text="x" * 1000, seq=number, time=number / 10)
        told.take(chunk)
    assert (told.events, told.time, len(told.texts)) == (5_000, 499.9, 3)
    name = ("s", 0, "m0", 0)
    assert told.has_told(name, "x" * 1000 * 1667)
    assert not told.has_told(name, "x" * 1000 * 1667)
    assert not told.has_told(("s", 0, "m1", 0), "other")
