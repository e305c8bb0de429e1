"""Journals whose file was damaged, or whose code is wrong: what is damaged is told, and the rest goes on."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from stores.test_journals import answers_of
from ultra import JournalDamaged, JournalUnavailable, MultiLLMOrchestrator
from ultra.errors import BadCall, ConfigError
from ultra.messages.events import RunFailed
from ultra.messages.request import ModelRequest
from ultra.messages.results import ModelResponse
from ultra.messages.runs import RunSpec, StrategySpec
from ultra.stores import open_journal
from ultra.stores.journal_contract import Claim, Ending, RunRecord
from ultra.stores.journal_memory import MemoryJournal
from ultra.testing import FakeModel

if TYPE_CHECKING:
    from pathlib import Path

    from ultra.stores.journal_contract import Lease, RunJournal

SPEC = RunSpec(
    request=ModelRequest.of("?", None), models=("a",), strategy=StrategySpec("vote"), secret=b"s" * 32
)


def journal_of(folder: Path) -> RunJournal:
    return open_journal(f"sqlite:///{folder}/runs.db")


def change(folder: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(folder / "runs.db")) as file, file:
        file.execute(statement, values)


async def begun(journal: RunJournal, run_id: str) -> Lease:
    claim = await journal.add(RunRecord(run_id=run_id, spec=SPEC), "before")
    assert isinstance(claim, Claim)
    await journal.append(claim.lease, [RunFailed(run_id=run_id, seq=0, error="x", message="y")])
    return claim.lease


@pytest.mark.parametrize("damage", ["spec = x'ff00'", "spec = 7", "tags = 'text'", "created = 'yesterday'"])
async def test_a_damaged_run_ends_once_and_keeps_no_other_from_being_claimed(
    tmp_path: Path, damage: str
) -> None:
    journal = journal_of(tmp_path)
    leases = [await begun(journal, name) for name in ("first", "second")]
    await journal.release(leases)
    change(tmp_path, f"UPDATE runs SET {damage} WHERE run_id = 'first'")

    assert [claim.run.run_id for claim in await journal.claim("after", limit=10)] == ["second"]
    assert await journal.claim("after", limit=10) == []
    *_, last = await journal.read("first")
    assert isinstance(last, RunFailed)
    assert (last.seq, last.error) == (1, "JournalDamaged")
    with pytest.raises(JournalDamaged, match=r"run 'first' is damaged: .*; delete the run"):
        await journal.get("first")
    second, first = await journal.list_runs()
    assert (second.run_id, second.damage) == ("second", None)
    assert (first.run_id, first.state, first.code) == ("first", "failed", "JournalDamaged")
    assert first.damage
    assert await journal.delete("first")
    assert await journal.get("first") is None


async def test_a_damaged_answer_is_left_out_and_a_damaged_event_is_told(tmp_path: Path) -> None:
    journal = journal_of(tmp_path)
    lease = await begun(journal, "r")
    answer = ModelResponse(model_name="a", stage="initial", content="A")
    for key in (b"1", b"2"):
        await journal.keep_answer(lease, key, answer)
    change(tmp_path, "UPDATE answers SET answer = x'00' WHERE key = ?", b"1")
    change(tmp_path, "UPDATE events SET event = x'81a474797065c1'")

    assert await answers_of(journal, "r") == {b"1": None, b"2": answer}
    with pytest.raises(JournalDamaged):
        await journal.read("r")


async def test_a_run_whose_events_are_damaged_ends_where_it_is_taken_up(tmp_path: Path) -> None:
    journal = journal_of(tmp_path)
    await journal.release([await begun(journal, "r")])
    change(tmp_path, "UPDATE events SET event = 'no bytes'")

    orchestrator = MultiLLMOrchestrator(journal=journal)
    orchestrator.register_model("a", FakeModel("A"))
    async with orchestrator, orchestrator.follow("r", after=0) as run:
        with trio.fail_after(5):
            (last,) = [event async for event in run]
    assert isinstance(last, RunFailed)
    assert last.error == "JournalDamaged"


def damaged_at_random(path: Path, random: Random) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(random.choice((1, 5, 50))):
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    path.write_bytes(data[: random.randrange(len(data))] if random.random() < 0.2 else data)


@pytest.mark.parametrize("seed", range(30))
async def test_whatever_bits_are_wrong_in_the_file_nothing_else_is_raised(tmp_path: Path, seed: int) -> None:
    made = journal_of(tmp_path)
    for name in ("first", "second", "third"):
        lease = await begun(made, name)
        await made.keep_answer(lease, b"1", ModelResponse(model_name="a", stage="initial", content="A" * 100))
        await made.release([lease])
    await made.aclose()
    damaged_at_random(tmp_path / "runs.db", Random(seed))

    try:
        journal = journal_of(tmp_path)
    except (JournalUnavailable, ConfigError):
        return

    async def tried(method: Any, *given: Any, **named: Any) -> Any:
        try:
            return await method(*given, **named)
        except JournalUnavailable:
            return None

    for claim in await tried(journal.claim, "me", limit=10) or []:
        await tried(
            journal.append, claim.lease, [RunFailed(run_id=claim.run.run_id, seq=1, error="x", message="y")]
        )
    await tried(journal.list_runs)
    for name in ("first", "second", "third"):
        for method in (journal.get, journal.read):
            await tried(method, name)
        for key in await tried(journal.answer_keys, name) or ():
            await tried(journal.answer, name, key)
        await tried(journal.delete, name)
        last = RunFailed(error="RunCancelled", message="")
        await tried(journal.cancel, name, last, Ending(state="cancelled"))
    await tried(journal.prune)
    await journal.aclose()


class WrongJournal(MemoryJournal):
    """A journal of somebody else's, which raises what it likes, or returns what it likes."""

    def __init__(self, method: str, outcome: object) -> None:
        super().__init__()

        async def wrong(*_: object, **__: object) -> object:
            await trio.lowlevel.checkpoint()
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        setattr(self, method, wrong)


@pytest.mark.parametrize("outcome", [ValueError("mine"), "text", ["text"]], ids=["raises", "text", "list"])
@pytest.mark.parametrize(
    "method", ["claim", "renew", "get", "read", "cancel", "prune", "list_runs", "answer_keys", "answer"]
)
async def test_the_faults_of_somebody_elses_journal_end_no_orchestrator(method: str, outcome: object) -> None:
    journal = open_journal(WrongJournal(method, outcome))
    arguments: dict[str, tuple[Any, ...]] = {
        "claim": ("me",),
        "renew": ([],),
        "cancel": ("r", RunFailed(error="x", message="y"), Ending(state="cancelled")),
        "prune": (),
        "answer": ("r", b"key"),
        "list_runs": (),
    }
    named = {"limit": 3} if method == "claim" else {}
    with pytest.raises(JournalUnavailable, match=r"WrongJournal does not work: "):
        await getattr(journal, method)(*arguments.get(method, ("r",)), **named)

    orchestrator = MultiLLMOrchestrator(journal=WrongJournal(method, outcome))
    orchestrator.register_model("a", FakeModel("A"))
    async with orchestrator:
        await trio.testing.wait_all_tasks_blocked()
        assert str(await orchestrator.process_responses("?")) != ""


async def test_what_a_caller_does_wrong_is_still_told_as_such() -> None:
    journal = open_journal("memory")
    with pytest.raises(BadCall):
        await journal.add(RunRecord(run_id="r", spec=SPEC, tags={"client": object()}))
