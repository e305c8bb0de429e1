"""Followers of a run that another process executes: how soon they read, and an outage of the journal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from helpers.event_loops import on_every_loop
from ultra import MultiLLMOrchestrator
from ultra.durable.execution import ending_of
from ultra.durable.persistence import OUTAGE_SECONDS, persist
from ultra.errors import JournalDamaged, JournalUnavailable, SubmittedRunFailed
from ultra.messages.events import Chunk, RunFailed
from ultra.messages.request import ModelRequest
from ultra.messages.runs import RunSpec
from ultra.stores.journal_contract import PAGE_BYTES, Claim, RunRecord
from ultra.stores.journal_memory import MemoryJournal
from ultra.strategies import StrategySpec

if TYPE_CHECKING:
    from trio.testing import MockClock

    from ultra.messages.events import Event

SPEC = RunSpec(
    request=ModelRequest.of("?"),
    models=("a",),
    weights=(1.0,),
    strategy=StrategySpec("vote", {}),
    secret=b"s" * 16,
)
POLL = 5.0


class Elsewhere(MemoryJournal):
    """A journal into which another process writes: what is new is seen at the next poll only."""

    def __init__(self) -> None:
        super().__init__()
        self.failing_until = -1.0
        self.error: Exception = JournalUnavailable("redis://x", OSError("refused"))
        self.polls = self.reads = 0

    async def changed(self, run_id: str, after: int) -> None:
        self.polls += 1
        await trio.sleep(POLL)

    async def read(self, run_id: str, after: int = -1, limit: int = 256) -> list[Event]:
        self.reads += 1
        self._check()
        return await super().read(run_id, after, limit)

    async def get(self, run_id: str) -> RunRecord | None:
        self._check()
        return await super().get(run_id)

    def _check(self) -> None:
        if trio.current_time() < self.failing_until:
            raise self.error


async def begun(journal: MemoryJournal) -> Claim:
    claim = await journal.add(RunRecord(run_id="r", spec=SPEC), "another process")
    assert isinstance(claim, Claim)
    return claim


async def written(journal: MemoryJournal, claim: Claim, count: int, text: str = "x") -> None:
    """Write so many pieces, and the end."""
    events: list[Event] = [
        Chunk(run_id="r", seq=seq, stage="initial", model_name="a", text=text) for seq in range(count)
    ]
    last = RunFailed(run_id="r", seq=count, error="X", message="no")
    await journal.append(claim.lease, [*events, last], ending_of(last))


@pytest.mark.parametrize(
    ("count", "text"), [(5000, "x"), (200, "y" * (PAGE_BYTES // 3)), (3, "z" * PAGE_BYTES)]
)
async def test_a_follower_reads_on_at_once_behind_a_full_page(
    count: int, text: str, autojump_clock: MockClock
) -> None:
    journal = Elsewhere()
    claim = await begun(journal)
    orchestrator = MultiLLMOrchestrator(journal=journal)
    async with orchestrator.follow("r") as run:
        await written(journal, claim, count, text)
        begun_at = trio.current_time()
        seen = [event.seq async for event in run]

    assert seen == list(range(count + 1))
    assert trio.current_time() - begun_at == POLL
    assert journal.polls == 1


async def test_a_follower_waits_behind_a_page_that_is_not_full(autojump_clock: MockClock) -> None:
    journal = Elsewhere()
    claim = await begun(journal)
    orchestrator = MultiLLMOrchestrator(journal=journal)
    async with orchestrator.follow("r") as run:
        await journal.append(claim.lease, [Chunk(run_id="r", stage="initial", model_name="a", text="x")])
        await anext(run)
        journal.reads = 0
        with trio.move_on_after(4 * POLL):
            await anext(run)
    assert journal.reads <= 4


async def test_a_short_outage_of_the_journal_is_waited_for(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Elsewhere()
    claim = await begun(journal)
    orchestrator = MultiLLMOrchestrator(journal=journal)
    async with orchestrator.follow("r") as run:
        for _ in range(3):  # each outage has a time of its own
            journal.failing_until = trio.current_time() + OUTAGE_SECONDS - 1
            with trio.move_on_after(OUTAGE_SECONDS + 2 * POLL):
                await anext(run)
        await written(journal, claim, 10)
        journal.failing_until = trio.current_time() + OUTAGE_SECONDS - 1
        seen = [event.seq async for event in run]
        journal.failing_until = trio.current_time() + OUTAGE_SECONDS - 1
        with pytest.raises(SubmittedRunFailed):
            await run.result()

    assert seen == list(range(11))
    assert caplog.text.count("journal unavailable") == 5


async def test_an_outage_without_an_end_is_told_once(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Elsewhere()
    await begun(journal)
    journal.failing_until = trio.current_time() + 10 * OUTAGE_SECONDS
    await persist(lambda: journal.read("r", -1), "r")

    assert trio.current_time() >= journal.failing_until
    assert caplog.text.count("journal unavailable") == 1


@pytest.mark.parametrize("method", ["__anext__", "result"])
async def test_a_longer_outage_is_an_error_and_the_reader_may_go_on_later(
    method: str, autojump_clock: MockClock
) -> None:
    journal = Elsewhere()
    claim = await begun(journal)
    orchestrator = MultiLLMOrchestrator(journal=journal)
    async with orchestrator.follow("r") as run:
        await written(journal, claim, 2)
        journal.failing_until = trio.current_time() + 1000
        begun_at = trio.current_time()
        with pytest.raises(JournalUnavailable, match="refused"):
            await getattr(run, method)()
        assert OUTAGE_SECONDS - 1 <= trio.current_time() - begun_at <= OUTAGE_SECONDS + POLL
        await trio.sleep(1000)
        assert [event.seq async for event in run] == [0, 1, 2]


async def test_what_is_damaged_is_not_waited_for(autojump_clock: MockClock) -> None:
    journal = Elsewhere()
    await begun(journal)
    orchestrator = MultiLLMOrchestrator(journal=journal)
    async with orchestrator.follow("r") as run:
        journal.error = JournalDamaged("r", ValueError("checksum"))
        journal.failing_until = trio.current_time() + 10_000
        begun_at = trio.current_time()
        with pytest.raises(JournalDamaged):
            await anext(run)
    assert trio.current_time() - begun_at <= POLL


async def test_who_leaves_during_an_outage_leaves_at_once(autojump_clock: MockClock) -> None:
    journal = Elsewhere()
    await begun(journal)
    orchestrator = MultiLLMOrchestrator(journal=journal)
    async with orchestrator.follow("r") as run:
        journal.failing_until = trio.current_time() + 10_000
        begun_at = trio.current_time()
        with trio.move_on_after(POLL + 3):
            await anext(run)
    assert trio.current_time() - begun_at == POLL + 3


@on_every_loop
async def test_an_outage_is_waited_for_on_every_loop() -> None:
    class Shaky(MemoryJournal):
        fails = 0

        async def read(self, run_id: str, after: int = -1, limit: int = 256) -> list[Event]:
            if self.fails:
                self.fails -= 1
                raise JournalUnavailable("redis://x", OSError("refused"))
            return await super().read(run_id, after, limit)

    journal = Shaky()
    orchestrator = MultiLLMOrchestrator(journal=journal)
    async with orchestrator:  # so that the journal has one trio run
        claim = await orchestrator._lifespan.trio_run.run(lambda: begun(journal))
        await orchestrator._lifespan.trio_run.run(lambda: written(journal, claim, 3))
        async with orchestrator.follow("r") as run:
            journal.fails = 2
            assert [event.seq async for event in run] == [0, 1, 2, 3]
