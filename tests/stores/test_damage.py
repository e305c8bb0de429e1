"""Wrong bits in what a store keeps: they are told, they end what they are in, and they stop nothing else."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import trio
from msgspec.structs import replace

from helpers.damage import Damage, FileDamage, RedisDamage
from stores.test_journals import CANCELLED, LAST, Clock, a_run, answers_of, journal_of, last
from ultra import JournalDamaged
from ultra.messages.events import Chunk
from ultra.messages.results import ModelResponse
from ultra.stores import open_journal
from ultra.stores.batch_contract import BATCH_KEPT, Batch
from ultra.stores.delivery_contract import Delivery
from ultra.stores.journal_contract import Claim, Ending
from ultra.stores.journal_sqlite import SqliteJournal

if TYPE_CHECKING:
    from pathlib import Path

    from ultra.stores.journal_contract import Lease

ANSWER = ModelResponse(model_name="gpt", stage="initial", content="Paris.")
BATCH = Batch(id="good", owner="Ann", total=2, concurrency=3)
LINES = b'{"custom_id": "one"}\n{"custom_id": "two"}\n'


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["sqlite", "redis"])
def inner(request: pytest.FixtureRequest, clock: Clock, tmp_path: Path) -> Any:
    url = request.getfixturevalue("url") if request.param == "redis" else ""
    return journal_of(request.param, url, clock, tmp_path)


@pytest.fixture
def journal(inner: Any) -> Any:
    return open_journal(inner)


@pytest.fixture
def damage(inner: Any, tmp_path: Path) -> Damage:
    return FileDamage(tmp_path / "runs.db") if isinstance(inner, SqliteJournal) else RedisDamage(inner)


async def begun(journal: Any, run_id: str, holder: str = "before") -> Lease:
    claim = await journal.add(a_run(run_id), holder)
    assert isinstance(claim, Claim)
    chunk = Chunk(run_id=run_id, seq=0, stage="initial", model_name="gpt", text="Par")
    await journal.append(claim.lease, [chunk])
    return claim.lease


async def test_a_wrong_bit_in_a_text_of_an_event_is_told(journal: Any, damage: Damage) -> None:
    await begun(journal, "r")
    await begun(journal, "other")
    await damage.events("r", b"Par", b"Pas")

    with pytest.raises(JournalDamaged, match="its checksum is another one"):
        await journal.read("r")
    assert len(await journal.read("other")) == 1


async def test_a_wrong_bit_in_a_paid_answer_is_an_answer_that_is_not_there(
    journal: Any, damage: Damage
) -> None:
    lease = await begun(journal, "r")
    await journal.keep_answer(lease, b"1" * 32, ANSWER)
    other = replace(ANSWER, content="Lyon.")
    await journal.keep_answer(lease, b"2" * 32, other)
    await damage.answers("r", b"Paris", b"Parit")

    assert await answers_of(journal, "r") == {b"1" * 32: None, b"2" * 32: other}


@pytest.mark.parametrize("word", [b"France", b"vote"])
async def test_a_wrong_bit_in_what_a_run_is_to_do_ends_it_and_no_other(
    journal: Any, damage: Damage, word: bytes
) -> None:
    await journal.release([await begun(journal, "first"), await begun(journal, "second")])
    await damage.spec("first", word, word[:-1] + b"~")

    assert [claim.run.run_id for claim in await journal.claim("after", limit=9)] == ["second"]
    with pytest.raises(JournalDamaged) as caught:
        await journal.get("first")
    rest = caught.value.run
    assert (rest.owner, rest.state, rest.events) == (None, "failed", 2)  # type: ignore[attr-defined]
    assert [record.run_id for record in await journal.list_runs() if record.damage] == ["first"]
    assert [event.seq for event in await journal.read("first")] == [0, 1]


async def test_the_damage_of_one_run_is_not_told_of_those_that_are_written_with_it(
    journal: Any, damage: Damage
) -> None:
    lease = await begun(journal, "second")
    await journal.release([await begun(journal, "first")])
    await damage.spec("first", b"France", b"Frbnce")
    told = []

    async def cancel() -> None:
        try:
            await journal.cancel("first", LAST, CANCELLED)
        except JournalDamaged as error:
            told.append(error.run_id)

    async def append() -> None:
        for seq in (1, 2, 3):
            chunk = Chunk(run_id="second", seq=seq, stage="s", model_name="gpt", text="x")
            await journal.append(lease, [chunk])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(append)
        for _ in range(3):
            nursery.start_soon(cancel)
    assert told == ["first"] * 3
    assert len(await journal.read("second")) == 4


@pytest.mark.parametrize("is_claimed", [True, False])
async def test_a_damaged_run_can_be_deleted_unless_somebody_holds_it(
    journal: Any, damage: Damage, *, is_claimed: bool
) -> None:
    lease = await begun(journal, "r")
    await damage.spec("r", b"France", b"Frbnce")
    assert not await journal.delete("r")
    await journal.release([lease])
    if is_claimed:
        assert await journal.claim("after", limit=9) == []

    assert await journal.delete("r")
    assert await journal.get("r") is None
    assert await journal.claim("after", limit=9) == []
    assert await journal.list_runs() == []


async def test_a_damaged_run_that_nobody_holds_ends_when_it_is_cancelled(
    journal: Any, damage: Damage
) -> None:
    await journal.release([await begun(journal, "r")])
    await damage.spec("r", b"France", b"Frbnce")
    with pytest.raises(JournalDamaged):
        await journal.cancel("r", LAST, CANCELLED)
    assert [event.seq for event in await journal.read("r")] == [0, 1]
    assert await journal.claim("after", limit=9) == []


async def test_a_run_whose_last_event_is_damaged_can_be_cancelled(journal: Any, damage: Damage) -> None:
    await journal.release([await begun(journal, "r")])
    await damage.events("r", b"Par", b"Pas")
    record = await journal.cancel("r", LAST, CANCELLED)
    assert record is not None
    assert (record.state, record.events) == ("cancelled", 2)


@pytest.mark.parametrize("field", ["batch", "lines"])
async def test_a_damaged_batch_is_told_and_ends_and_the_others_go_on(
    journal: Any, damage: Damage, clock: Clock, field: str
) -> None:
    for name in ("bad", "good"):
        await journal.batches.add(replace(BATCH, id=name), LINES)
    if field == "batch":
        await damage.batch("bad", b"total", b"t\xfftal") if isinstance(damage, FileDamage) else None
        if isinstance(damage, RedisDamage):
            await damage.batch("bad", b'"Ann"', b'"Ann')
    else:
        await damage.lines("bad", b"one", b"ooe")
    held = [batch.id for batch in await journal.batches.hold("me", 10)]

    with pytest.raises(JournalDamaged, match=r"what the journal has of batch 'bad' is damaged: "):
        await (journal.batches.get if field == "batch" else journal.batches.lines)("bad")
    if field == "batch":
        assert held == ["good"]
        with pytest.raises(JournalDamaged):
            await journal.batches.update("bad", {"completed": 1})
    assert await journal.batches.lines("good") == LINES
    assert (await journal.batches.update("good", {"completed": 1})).completed == 1
    clock.time += BATCH_KEPT + 60
    held = [batch.id for batch in await journal.batches.hold("me", 10)]
    assert held == (["good"] if field == "batch" else ["bad", "good"])
    if field == "batch":
        assert await journal.batches.get("bad") is None


async def test_a_damaged_notice_is_dropped_and_the_others_are_delivered(journal: Any, damage: Damage) -> None:
    deliveries = journal.deliveries
    lease = await begun(journal, "r")
    for name in ("bad", "good"):
        await deliveries.add_delivery(Delivery(id=name, run_id="r", url="https://example.org/hook"))
    await damage.notice("bad", "example.org", "example.orf")
    await journal.append(lease, [last(1)], Ending(state="completed"))

    assert [each.id for each in await deliveries.take_deliveries(9, 0.0)] == ["good"]
    assert [each.id for each in await deliveries.take_deliveries(9, 0.0)] == ["good"]


async def test_a_page_of_events_ends_behind_so_many_bytes(journal: Any) -> None:
    lease = await begun(journal, "r")
    text = "x" * 100_000
    more = [Chunk(run_id="r", seq=seq, stage="s", model_name="gpt", text=text) for seq in range(1, 10)]
    await journal.append(lease, more)
    pages = []
    after = -1
    while page := await journal.read("r", after):
        pages.append([event.seq for event in page])
        after = page[-1].seq
    assert pages == [[0, 1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert [event.seq for event in await journal.read("r", 2, 2)] == [3, 4]


async def test_a_file_of_an_earlier_version_is_read_and_what_is_new_in_it_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    made: Any = open_journal(SqliteJournal(path))
    lease = await begun(made, "old")
    await made.keep_answer(lease, b"1" * 32, ANSWER)
    await made.batches.add(BATCH, LINES)
    await made.deliveries.add_delivery(Delivery(id="n", run_id="old", url="https://example.org"))
    await made.release([lease])
    await made.aclose()
    with closing(sqlite3.connect(path)) as file, file:
        file.execute("DROP TRIGGER batches_changed")
        file.execute("ALTER TABLE batches DROP COLUMN lines_sum")
        for table in ("runs", "events", "answers", "batches", "deliveries"):
            file.execute(f"ALTER TABLE {table} DROP COLUMN sum")

    journal: Any = open_journal(SqliteJournal(path))
    (claim,) = await journal.claim("me", limit=9)
    assert len(await journal.read("old")) == 1
    assert await answers_of(journal, "old") == {b"1" * 32: ANSWER}
    assert await journal.batches.lines("good") == LINES
    assert (await journal.batches.hold("me", 10))[0].id == "good"
    chunk = Chunk(run_id="old", seq=1, stage="initial", model_name="gpt", text="Lyon")
    await journal.append(claim.lease, [chunk])
    await FileDamage(path).events("old", b"Lyon", b"Lyom")
    assert len(await journal.read("old", -1, 1)) == 1
    with pytest.raises(JournalDamaged):
        await journal.read("old", 0)
    await journal.append(claim.lease, [last(2, "old")], Ending(state="completed"))
    assert [each.id for each in await journal.deliveries.take_deliveries(9, 60)] == ["n"]


async def test_an_earlier_version_may_change_a_batch_of_this_one(tmp_path: Path) -> None:
    journal: Any = open_journal(SqliteJournal(tmp_path / "runs.db"))
    await journal.batches.add(BATCH, LINES)
    changed = replace(BATCH, completed=1)
    with closing(sqlite3.connect(tmp_path / "runs.db")) as file, file:
        import msgspec  # noqa: PLC0415 - as that version encodes it

        file.execute("UPDATE batches SET batch = ?", (msgspec.msgpack.encode(changed),))
    assert (await journal.batches.get("good")).completed == 1
