"""What is special about the journal in Redis; its contract is tested with the other journals."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from helpers.redis_server import redis_process
from stores.test_journals import CANCELLED, DONE, FAILED, LAST, a_run, answers_of, chunk, claimed, last, seqs
from ultra import MultiLLMOrchestrator
from ultra.errors import BadCall, JournalDamaged, JournalUnavailable
from ultra.messages.events import RunFailed
from ultra.messages.results import ModelResponse
from ultra.stores.journal_contract import Claim, LeaseLost, Retention
from ultra.stores.journal_fence import FencedJournal
from ultra.stores.journal_opening import open_journal
from ultra.testing import FakeModel

pytest.importorskip("coredis", reason="the extra 'redis' is not installed")

from ultra.stores.journal_redis import RedisJournal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

PATIENCE = 20.0

# coredis does not close its queues (they are memory, no sockets) when it cannot connect.
pytestmark = [
    pytest.mark.filterwarnings(
        "ignore:.*<function MemoryObject(Send|Receive)Stream:pytest.PytestUnraisableExceptionWarning"
    ),
    pytest.mark.usefixtures("no_garbage_is_left"),
]


def journal_of(url: str, **given: float) -> RedisJournal:
    return RedisJournal(url, **{"timeout": PATIENCE, **given})  # type: ignore[arg-type]


@asynccontextmanager
async def kept(journal: RedisJournal) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: journal.keep_connected(task_status=task_status))
        yield
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("keeps", [True, False])
async def test_who_follows_is_woken_by_what_another_process_writes(url: str, *, keeps: bool) -> None:
    writer, reader = journal_of(url), journal_of(url)
    lease = await claimed(writer)
    read: list[int] = []
    over = trio.Event()

    async def follow() -> None:
        while len(read) < 3:
            read.extend(await seqs(reader, after=len(read) - 1))
            if len(read) < 3:
                await reader.changed("r", len(read) - 1)
        over.set()

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            if keeps:
                await nursery.start(lambda task_status: reader.keep_connected(task_status=task_status))
            nursery.start_soon(follow)
            await writer.append(lease, [chunk(0)])
            await writer.append(lease, [chunk(1), last(2)], DONE)
            await over.wait()
            nursery.cancel_scope.cancel()
    assert read == [0, 1, 2]


async def add_change(client: Any, *, fields: dict[str, str | bytes | int]) -> None:
    await client.xadd("ultra-runs:1:changes", fields)


async def test_what_is_damaged_among_the_changes_ends_no_connection(url: str) -> None:
    writer, reader = journal_of(url), journal_of(url)
    lease = await claimed(writer)
    with trio.fail_after(PATIENCE):
        async with kept(reader):
            await writer.append(lease, [chunk(0)])
            damaged: list[dict[str, str | bytes | int]] = [{"run": "r", "seq": "x"}, {"run": "r"}]
            damaged.append({"run": b"\xff", "seq": 1})
            for number, fields in enumerate(damaged, start=1):
                await writer._use(partial(add_change, fields=fields))
                await writer.append(lease, [chunk(number)])
                while reader._watchers and reader._changes._latest.get("r") != number:
                    await reader.changed("r", number)
            assert reader._watchers == 1


async def test_what_is_told_of_changes_does_not_grow_for_ever(url: str) -> None:
    journal = journal_of(url)
    lease = await claimed(journal)
    async with kept(journal):
        for number in range(30):
            await journal.append(lease, [chunk(number)])
        # Few nodes of a stream are cut at once, so this fills it as many processes would.
        changes = f"{journal._prefix}changes"
        await journal._server.use(
            lambda client: client.eval(
                "for n = 1, 3000 do redis.call('XADD', KEYS[1], '*', 'run', 'r', 'seq', n) end", [changes]
            )
        )
        await journal.append(lease, [chunk(30)])
        assert await journal._server.use(lambda client: client.xlen(changes)) < 1500


async def test_a_run_that_is_removed_leaves_nothing(url: str) -> None:
    journal = journal_of(url)
    lease = await claimed(journal, owner="team", idempotency_key="k")
    await journal.append(lease, [last(0)], DONE)
    await journal.delete("r")
    keys = await journal._server.use(lambda client: client.keys("*"))
    names = {bytes(key).decode().removeprefix(journal._prefix) for key in keys}
    assert names == {"number", "bytes", "changes"}
    assert await journal._server.use(lambda client: client.get(f"{journal._prefix}bytes")) == b"0"


async def test_many_runs_are_listed_in_pages(url: str) -> None:
    journal = journal_of(url)
    async with kept(journal):
        for number in range(1100):
            lease = await claimed(journal, f"r{number}")
            if number in {3, 700}:
                await journal.append(lease, [last(0, f"r{number}")], FAILED)
        found = await journal.list_runs(states=["failed"])
        assert [record.run_id for record in found] == ["r700", "r3"]
        assert len(await journal.list_runs(limit=1050)) == 1050
        [first, *_] = await journal.list_runs(before="r2")
        assert first.run_id == "r1"


async def test_a_run_that_the_server_has_evicted_is_not_in_the_way_of_others(url: str) -> None:
    journal = journal_of(url)
    await journal.add(a_run("lost"))
    await journal.add(a_run("r"))
    await journal._server.use(lambda client: client.delete([f"{journal._prefix}run:lost"]))
    [claim] = await journal.claim("b", limit=10)
    assert claim.run.run_id == "r"
    assert [record.run_id for record in await journal.list_runs()] == ["r"]
    assert await journal.get("lost") is None


@pytest.mark.parametrize(("field", "value"), [("spec", b"\xff\x00"), ("tags", "text"), ("created", "then")])
async def test_a_damaged_run_ends_once_and_keeps_no_other_from_being_claimed(
    url: str, field: str, value: str | bytes
) -> None:
    journal = journal_of(url)
    for name in ("first", "second"):
        await journal.add(a_run(name))
    await journal._server.use(lambda client: client.hset(f"{journal._prefix}run:first", {field: value}))
    assert [claim.run.run_id for claim in await journal.claim("b", limit=10)] == ["second"]
    journal.ahead = 100.0
    assert [claim.run.run_id for claim in await journal.claim("b", limit=10)] == ["second"]
    assert [bool(record.damage) for record in await journal.list_runs()] == [False, True]
    [event] = await journal.read("first")
    assert isinstance(event, RunFailed)
    assert event.error == "JournalDamaged"
    with pytest.raises(JournalDamaged):
        await open_journal(journal).get("first")


async def test_a_damaged_answer_is_asked_for_anew(url: str) -> None:
    journal = journal_of(url)
    lease = await claimed(journal)
    answer = ModelResponse(model_name="gpt", stage="initial", content="Paris.")
    await journal.keep_answer(lease, b"one", answer)
    await journal.keep_answer(lease, b"two", answer)
    await journal._server.use(lambda client: client.hset(f"{journal._prefix}answers:r", {b"one": b"?"}))
    assert await answers_of(journal, "r") == {b"one": None, b"two": answer}


async def test_an_event_that_comes_between_does_not_spoil_a_cancellation(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, other = journal_of(url), journal_of(url)
    lease = await claimed(journal)
    journal.ahead = 10.1  # the lease has run out, and its holder writes all the same
    read, written = journal.read, False

    async def read_and_write(run_id: str, after: int = -1, limit: int = 256) -> object:
        nonlocal written
        if not written:
            written = True
            await other.append(lease, [chunk(0)])
        return await read(run_id, after, limit)

    monkeypatch.setattr(journal, "read", read_and_write)
    record = await journal.cancel("r", LAST, CANCELLED)
    assert record is not None
    assert (record.state, record.events) == ("cancelled", 2)
    assert await seqs(other) == [0, 1]
    with pytest.raises(LeaseLost):
        await other.append(lease, [chunk(2)])


async def test_what_has_no_room_is_refused_as_a_whole(tmp_path: Path) -> None:
    with redis_process(tmp_path) as server:
        journal = journal_of(server.url)
        lease = await claimed(journal)
        await journal._server.use(lambda client: client.config_set({"maxmemory": "1"}))
        with pytest.raises(JournalUnavailable, match="maxmemory"):
            await journal.append(lease, [chunk(0), last(1)], DONE)
        with pytest.raises(JournalUnavailable):
            await journal.add(a_run("more"))
        await journal._server.use(lambda client: client.config_set({"maxmemory": "0"}))
        assert await seqs(journal) == []
        assert [record.run_id for record in await journal.list_runs()] == ["r"]
        await journal.append(lease, [chunk(0), last(1)], DONE)


async def test_a_frozen_server_is_told_in_bounded_time_and_used_again_when_it_goes_on(
    tmp_path: Path,
) -> None:
    with redis_process(tmp_path) as server:
        journal = journal_of(server.url, timeout=0.3, lease=60.0)
        async with kept(journal):
            lease = await claimed(journal)
            server.freeze()
            with trio.fail_after(PATIENCE), pytest.raises(JournalUnavailable):
                await journal.append(lease, [chunk(0)])
            server.thaw()
            with trio.fail_after(PATIENCE):
                await until_written(journal, lease)
            assert await seqs(journal) == [0]


async def test_a_server_that_was_killed_has_all_that_was_written(tmp_path: Path) -> None:
    with redis_process(tmp_path, durable=True) as server:
        journal = journal_of(server.url, lease=60.0)
        async with kept(journal):
            lease = await claimed(journal, idempotency_key="k")
            await journal.append(lease, [chunk(0)])
            server.kill()
            with pytest.raises(JournalUnavailable):
                await journal.append(lease, [chunk(1)])
            await trio.to_thread.run_sync(server.start)
            with trio.fail_after(PATIENCE):
                await until_written(journal, lease)
            await journal.append(lease, [chunk(1), last(2)], DONE)
            assert await seqs(journal) == [0, 1, 2]
            assert not isinstance(await journal.add(a_run("again", idempotency_key="k"), "a"), Claim)


async def until_written(journal: RedisJournal, lease: object) -> None:
    while True:
        try:
            return await journal.append(lease, [chunk(0)])  # type: ignore[arg-type]
        except JournalUnavailable:
            await trio.sleep(0.01)


async def test_a_run_is_submitted_to_one_orchestrator_and_followed_from_another(url: str) -> None:
    async with orchestrator_on(url) as one, orchestrator_on(url) as other:
        run_id = await one.submit("Where?", idempotency_key="k")
        assert await other.submit("Where?", idempotency_key="k") == run_id
        with trio.fail_after(PATIENCE):
            async with other.follow(run_id) as run:
                events = [event async for event in run]
                result = await run.result()
        assert str(result.final_synthesis) == "yes"
        assert [event.seq for event in events] == list(range(len(events)))
        assert (await one.get_run(run_id)).executions == 1


def orchestrator_on(url: str) -> MultiLLMOrchestrator:
    orchestrator = MultiLLMOrchestrator(journal=RedisJournal(url, timeout=PATIENCE), cache_enabled=False)
    orchestrator.register_model("m", FakeModel("yes"))
    return orchestrator


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_the_setting_opens_it_and_leaves_durability_to_the_server(scheme: str) -> None:
    url = f"{scheme}://me:hunter2@127.0.0.1:1"
    journal = open_journal(url, retention=Retention(seconds=5.0))
    assert isinstance(journal, FencedJournal)
    assert isinstance(journal.inner, RedisJournal)
    assert "hunter2" not in repr(journal.inner)
    assert "hunter2" not in repr(journal)
    with pytest.raises(BadCall, match="appendfsync always") as caught:
        open_journal(url, synchronous="full")
    assert "hunter2" not in str(caught.value)


async def test_a_server_that_is_not_there_is_told_without_its_password() -> None:
    journal = open_journal("redis://me:hunter2@127.0.0.1:1")
    with pytest.raises(JournalUnavailable, match=r"redis://127\.0\.0\.1:1 does not work") as caught:
        await journal.get("r")
    assert "hunter2" not in str(caught.value) + repr(caught.value)
