"""The contract of a journal of runs, which every implementation keeps to."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

import pytest
import trio
from msgspec.structs import replace

from ultra.errors import BadCall, MissingExtra
from ultra.messages.events import Chunk, RunCompleted, RunFailed, StageStarted
from ultra.messages.options import RunOptions
from ultra.messages.request import ModelRequest, SamplingOptions
from ultra.messages.results import ModelResponse, OrchestrationResult
from ultra.messages.runs import RunSpec, StrategySpec
from ultra.stores.journal_contract import Claim, Ending, Lease, LeaseLost, Retention, RunJournal, RunRecord
from ultra.stores.journal_memory import MemoryJournal
from ultra.stores.journal_sqlite import SqliteJournal

try:
    from ultra.stores.journal_redis import RedisJournal
except MissingExtra:  # then nothing is one
    RedisJournal = SqliteJournal  # type: ignore[assignment, misc]

if TYPE_CHECKING:
    from pathlib import Path

    from ultra.messages.events import Event

SPEC = RunSpec(
    request=ModelRequest.of("Capital of France?", "Be brief.", SamplingOptions(temperature=0.5)),
    models=("gpt", "claude"),
    strategy=StrategySpec("vote", {"judge_on_tie": True}),
    options=RunOptions(timeout=30.0, quorum="all", scope="tenant"),
    secret=b"s" * 32,
)
FAILED = Ending(state="failed", code="QuorumNotReached", message="nobody answered")
CANCELLED = Ending(state="cancelled", code="RunCancelled", message="it was cancelled")
DONE = Ending(state="completed")
LAST = RunFailed(error="RunCancelled", message="it was cancelled")


class Clock:
    """A wall clock that a test sets."""

    def __init__(self) -> None:
        self.time = 1_000_000.0

    def __call__(self) -> float:
        return self.time


class Maker(Protocol):
    def __call__(self, *, lease: float = 10.0, retention: Retention | None = None) -> RunJournal: ...


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "sqlite", "redis"])
def make(request: pytest.FixtureRequest, clock: Clock, tmp_path: Path) -> Maker:
    url = request.getfixturevalue("url") if request.param == "redis" else ""

    def make(*, lease: float = 10.0, retention: Retention | None = None) -> RunJournal:
        return journal_of(request.param, url, clock, tmp_path, lease=lease, retention=retention)

    return make


def journal_of(kind: str, url: str, clock: Clock, tmp_path: Path, **given: Any) -> RunJournal:
    """Return a journal in memory, in SQLite or in Redis, by the clock of the test."""
    if kind == "memory":
        return MemoryJournal(now=clock, **given)
    if kind == "redis":
        return clocked_journal(url, clock, **given)
    return SqliteJournal(tmp_path / "runs.db", now=clock, **given)


def clocked_journal(url: str, clock: Clock, **given: Any) -> RunJournal:
    """Return a journal whose server's clock is shifted as the test sets its own."""
    from ultra.stores.journal_redis import RedisJournal  # noqa: PLC0415 - it needs the extra

    shift = -time.time()

    class ClockedJournal(RedisJournal):
        @property
        def ahead(self) -> float:
            return clock.time + shift

        @ahead.setter
        def ahead(self, _: float) -> None:
            pass

    return ClockedJournal(url, timeout=20, **given)


@pytest.fixture
def journal(make: Maker) -> RunJournal:
    return make()


def a_run(run_id: str, **given: object) -> RunRecord:
    return RunRecord(run_id=run_id, spec=SPEC, **given)  # type: ignore[arg-type]


def chunk(seq: int, text: str = "Par") -> Chunk:
    return Chunk(run_id="r", seq=seq, stage="initial", model_name="gpt", text=text)


def last(seq: int, run_id: str = "r") -> RunCompleted:
    return RunCompleted(run_id=run_id, seq=seq, result=OrchestrationResult(run_id=run_id, prompt="?"))


async def claimed(journal: RunJournal, run_id: str = "r", holder: str = "a", **given: object) -> Lease:
    found = await journal.add(a_run(run_id, **given), holder)
    assert isinstance(found, Claim)
    return found.lease


async def seqs(journal: RunJournal, run_id: str = "r", after: int = -1) -> list[int]:
    return [event.seq for event in await journal.read(run_id, after)]


async def answers_of(journal: RunJournal, run_id: str) -> dict[bytes, ModelResponse | None]:
    """All answers of a run, each read by itself; None: it cannot be read."""
    return {key: await journal.answer(run_id, key) for key in await journal.answer_keys(run_id)}


async def test_it_is_a_journal(journal: RunJournal) -> None:
    assert isinstance(journal, RunJournal)
    assert journal.lease_seconds == 10.0


async def test_an_accepted_run_comes_back_as_it_was_given(journal: RunJournal, clock: Clock) -> None:
    tags = {"metadata": {"user": "42"}}
    added = await journal.add(a_run("r", owner="team", idempotency_key="k", tags=tags))
    found = await journal.get("r")
    assert found == added
    assert isinstance(found, RunRecord)
    assert found.spec == SPEC
    assert (found.owner, found.idempotency_key, found.tags) == ("team", "k", tags)
    assert (found.state, found.ended, found.events) == ("queued", None, 0)
    assert found.created == pytest.approx(clock.time, abs=5)  # the server's clock goes on meanwhile
    assert await journal.get("other") is None


async def test_the_secret_of_a_run_is_in_no_repr(journal: RunJournal) -> None:
    await journal.add(a_run("r"))
    assert "ssss" not in repr(await journal.get("r"))


async def test_an_option_that_is_no_value_is_refused(journal: RunJournal) -> None:
    strategy = StrategySpec("best_of", {"verifier": print})
    spec = RunSpec(request=SPEC.request, models=("gpt",), strategy=strategy)
    with pytest.raises(BadCall, match="values"):
        await journal.add(RunRecord(run_id="r", spec=spec))
    assert await journal.get("r") is None


async def test_a_key_gives_the_run_that_has_it_and_only_to_its_owner(journal: RunJournal) -> None:
    await journal.add(a_run("first", owner="team", idempotency_key="k"), "a")
    again = await journal.add(a_run("second", owner="team", idempotency_key="k"), "a")
    assert isinstance(again, RunRecord)
    assert again.run_id == "first"
    assert await journal.get("second") is None
    for number, owner in enumerate([None, "", "other"]):
        found = await journal.add(a_run(f"of {number}", owner=owner, idempotency_key="k"))
        assert isinstance(found, RunRecord)
        assert found.run_id == f"of {number}"
    without = [await journal.add(a_run(f"without {number}")) for number in range(2)]
    assert [each.run_id for each in without if isinstance(each, RunRecord)] == ["without 0", "without 1"]


async def test_events_are_read_in_their_order_from_any_place(journal: RunJournal) -> None:
    lease = await claimed(journal)
    first = StageStarted(run_id="r", seq=0, stage="initial", models=("gpt",), asks="all")
    events: list[Event] = [first, chunk(1), chunk(2, "is"), last(3)]
    await journal.append(lease, events[:2])
    assert (await journal.get("r") or a_run("")).state == "running"
    await journal.append(lease, events[2:], DONE)
    assert await journal.read("r") == events
    assert await journal.read("r", after=1) == events[2:]
    assert await journal.read("r", after=1, limit=1) == [events[2]]
    assert await journal.read("r", after=3) == []
    assert await journal.read("other") == []
    record = await journal.get("r")
    assert record is not None
    assert (record.state, record.events) == ("completed", 4)
    assert record.bytes > 0


async def test_events_that_are_written_twice_are_there_once(journal: RunJournal) -> None:
    lease = await claimed(journal)
    await journal.append(lease, [chunk(0), chunk(1)])
    await journal.append(lease, [chunk(1), chunk(2)])
    assert await seqs(journal) == [0, 1, 2]
    assert (await journal.get("r") or a_run("")).events == 3


async def test_numbers_of_more_than_64_bits_come_back(journal: RunJournal) -> None:
    lease = await claimed(journal)
    result = OrchestrationResult(run_id="r", prompt="?", plain_output={"n": 2**70})
    await journal.append(lease, [RunCompleted(run_id="r", seq=0, result=result)], DONE)
    [event] = await journal.read("r")
    assert isinstance(event, RunCompleted)
    assert event.result.plain_output == {"n": 2**70}


async def test_a_run_that_has_ended_takes_nothing_more(journal: RunJournal, clock: Clock) -> None:
    lease = await claimed(journal)
    await journal.append(lease, [RunFailed(run_id="r", seq=0, error="E", message="m")], FAILED)
    record = await journal.get("r")
    assert record is not None
    assert (record.state, record.code, record.message) == ("failed", "QuorumNotReached", "nobody answered")
    assert record.ended == pytest.approx(clock.time, abs=5)
    assert record.has_ended
    with pytest.raises(LeaseLost):
        await journal.append(lease, [chunk(1)])
    with pytest.raises(LeaseLost):
        await journal.append(lease, [last(1)], DONE)
    with pytest.raises(LeaseLost):
        await journal.keep_answer(lease, b"k", ModelResponse(model_name="gpt", stage="s", content="t"))
    clock.time += 100
    assert await journal.claim("b", limit=10) == []
    assert await journal.get("r") == record
    assert await seqs(journal) == [0]


async def test_a_lease_that_ran_out_is_claimed_and_what_the_old_one_writes_is_refused(
    journal: RunJournal, clock: Clock
) -> None:
    old = await claimed(journal)
    await journal.append(old, [chunk(0)])
    assert await journal.claim("b", limit=10) == []
    clock.time += 10.1
    [claim] = await journal.claim("b", limit=10)
    assert claim.run.run_id == "r"
    assert (claim.run.events, claim.run.executions) == (1, 2)
    assert await journal.claim("c", limit=10) == []
    with pytest.raises(LeaseLost):
        await journal.append(old, [chunk(1)])
    assert (await journal.renew([old])).held == set()
    await journal.release([old])  # does not take it from the new holder
    await journal.append(claim.lease, [last(1)], DONE)
    assert await seqs(journal) == [0, 1]


async def test_one_holder_may_claim_a_run_again_and_its_old_lease_is_no_use(
    journal: RunJournal, clock: Clock
) -> None:
    old = await claimed(journal)
    clock.time += 10.1
    [claim] = await journal.claim("a", limit=10)
    with pytest.raises(LeaseLost):
        await journal.append(old, [chunk(0)])
    await journal.append(claim.lease, [chunk(0)])


async def test_a_lease_of_a_clock_that_was_set_back_is_claimed_unless_it_is_renewed(
    journal: RunJournal, clock: Clock
) -> None:
    await claimed(journal, "dead")
    alive = await claimed(journal, "alive")
    clock.time -= 86_400
    assert (await journal.renew([alive])).held == {"alive"}
    assert [claim.run.run_id for claim in await journal.claim("b", limit=10)] == ["dead"]
    assert await journal.claim("c", limit=10) == []


async def test_a_renewed_lease_holds(journal: RunJournal, clock: Clock) -> None:
    lease = await claimed(journal)
    for _ in range(3):
        clock.time += 9
        assert (await journal.renew([lease])).held == {"r"}
        assert await journal.claim("b", limit=10) == []
    clock.time += 20  # it has run out, and nobody took it
    assert (await journal.renew([lease])).held == {"r"}
    assert await journal.claim("b", limit=10) == []


async def test_a_released_run_is_claimed_at_once_the_oldest_first(journal: RunJournal) -> None:
    leases = [await claimed(journal, name) for name in ("r1", "r2", "r3")]
    await journal.release(leases[1:])
    assert [claim.run.run_id for claim in await journal.claim("b", limit=1)] == ["r2"]
    assert [claim.run.run_id for claim in await journal.claim("b", limit=5)] == ["r3"]


async def test_a_run_without_a_holder_is_for_whoever_claims_it(journal: RunJournal) -> None:
    await journal.add(a_run("r"))
    [claim] = await journal.claim("b", limit=1)
    assert claim.run.executions == 1
    await journal.append(claim.lease, [last(0)], DONE)


async def test_answers_are_kept_under_what_was_asked(journal: RunJournal) -> None:
    lease = await claimed(journal)
    answer = ModelResponse(model_name="gpt", stage="initial", content="Paris.", cost=0.5)
    await journal.keep_answer(lease, b"one", answer)
    await journal.keep_answer(lease, b"two", answer)
    assert await answers_of(journal, "r") == {b"one": answer, b"two": answer}
    assert await answers_of(journal, "other") == {}
    assert await journal.answer("r", b"three") is None
    assert await journal.answer("other", b"one") is None


async def test_cancelling_a_run_that_nobody_holds_ends_it_at_once(journal: RunJournal) -> None:
    await journal.add(a_run("r"))
    record = await journal.cancel("r", LAST, CANCELLED)
    assert record is not None
    assert (record.state, record.code) == ("cancelled", "RunCancelled")
    [event] = await journal.read("r")
    assert (event.run_id, event.seq) == ("r", 0)
    assert await journal.claim("a", limit=1) == []
    assert await journal.cancel("r", LAST, CANCELLED) == record
    assert await journal.cancel("other", LAST, CANCELLED) is None


async def test_cancelling_a_run_whose_process_died_ends_it_behind_its_events(
    journal: RunJournal, clock: Clock
) -> None:
    lease = await claimed(journal)
    await journal.append(lease, [chunk(0)])
    clock.time += 10.1
    record = await journal.cancel("r", LAST, CANCELLED)
    assert record is not None
    assert record.state == "cancelled"
    assert await seqs(journal) == [0, 1]


async def test_the_holder_is_told_at_the_next_renewal_that_a_run_is_to_be_cancelled(
    journal: RunJournal,
) -> None:
    lease, other = await claimed(journal), await claimed(journal, "other")
    record = await journal.cancel("r", LAST, CANCELLED)
    assert record is not None
    assert (record.state, record.cancelling) == ("queued", True)
    renewal = await journal.renew([lease, other])
    assert renewal.held == {"r", "other"}
    assert renewal.cancelling == {"r"}


async def test_runs_are_listed_the_last_accepted_first(journal: RunJournal) -> None:
    for number in range(4):
        await claimed(journal, f"r{number}", owner="even" if number % 2 == 0 else "odd")
    await journal.append(
        Lease(run_id="r0", holder="a", number=1), [RunFailed(run_id="r0", error="E", message="m")], FAILED
    )

    async def names(**given: object) -> list[str]:
        return [record.run_id for record in await journal.list_runs(**given)]  # type: ignore[arg-type]

    assert await names() == ["r3", "r2", "r1", "r0"]
    assert await names(limit=2) == ["r3", "r2"]
    assert await names(limit=2, before="r2") == ["r1", "r0"]
    assert await names(owner="even") == ["r2", "r0"]
    assert await names(states=["failed"]) == ["r0"]
    assert await names(states=["queued", "completed"], owner="even") == ["r2"]
    assert await names(before="unknown") == []


async def test_only_a_run_that_has_ended_is_deleted_and_its_key_is_free_again(journal: RunJournal) -> None:
    lease = await claimed(journal, owner="team", idempotency_key="k")
    await journal.keep_answer(lease, b"k", ModelResponse(model_name="gpt", stage="s", content="t"))
    assert not await journal.delete("r")
    await journal.append(lease, [last(0)], DONE)
    assert await journal.delete("r")
    assert not await journal.delete("r")
    assert await journal.get("r") is None
    assert await journal.read("r") == []
    assert await answers_of(journal, "r") == {}
    assert isinstance(await journal.add(a_run("r", owner="team", idempotency_key="k"), "a"), Claim)


async def test_ended_runs_are_kept_for_their_time(make: Maker, clock: Clock) -> None:
    journal = make(retention=Retention(seconds=100.0, bytes=None))
    await claimed(journal, "goes on")
    for number in range(3):
        lease = await claimed(journal, f"r{number}")
        await journal.append(lease, [last(0)], DONE)
        clock.time += 60
    assert await journal.prune() == 2
    assert [record.run_id for record in await journal.list_runs()] == ["r2", "goes on"]
    assert await journal.prune() == 0


async def test_the_runs_that_ended_first_go_when_there_are_too_many_bytes(make: Maker, clock: Clock) -> None:
    journal = make(retention=Retention(seconds=None, bytes=7_500))
    for number in range(5):
        lease = await claimed(journal, f"r{number}")
        await journal.append(lease, [chunk(0, "x" * 2_000), last(1)], DONE)
        clock.time += 1
    assert await journal.prune() == 3
    assert [record.run_id for record in await journal.list_runs()] == ["r4", "r3"]


async def test_a_run_that_has_ended_is_written_whole_and_nobody_claims_it(make: Maker, clock: Clock) -> None:
    journal = make()
    assert isinstance(journal, MemoryJournal | SqliteJournal | RedisJournal)
    answer = ModelResponse(model_name="gpt", stage="initial", content="Paris.")
    events: list[Event] = [chunk(0), last(1)]
    began = clock.time - 5.0
    await journal.record(a_run("r", created=began, tags={"by": "ask"}), events, DONE, {b"k" * 32: answer})

    record = await journal.get("r")
    assert record is not None
    assert (record.state, record.created) == ("completed", began)
    assert record.ended == pytest.approx(clock.time, abs=5)
    assert (record.events, record.executions, record.tags) == (2, 1, {"by": "ask"})
    assert await journal.read("r") == events
    assert await answers_of(journal, "r") == {b"k" * 32: answer}
    clock.time += 100
    assert await journal.claim("other", limit=10) == []
    assert await journal.delete("r")
    assert await journal.list_runs() == []


async def test_the_request_of_a_run_counts_as_what_it_takes_up(journal: RunJournal) -> None:
    small, large = SPEC, replace(SPEC, request=ModelRequest.of("x" * 10_000))
    for name, spec in (("small", small), ("large", large)):
        await journal.add(RunRecord(run_id=name, spec=spec))
    sizes = [(await journal.get(name) or a_run("")).bytes for name in ("small", "large")]
    assert 0 < sizes[0] < 1_000
    assert sizes[1] > 10_000


async def test_who_waits_is_woken_by_the_next_event(journal: RunJournal) -> None:
    lease = await claimed(journal)
    read: list[int] = []

    async def follow() -> None:
        after = -1
        while after < 2:
            for event in await journal.read("r", after):
                after = event.seq
                read.append(after)
            if after < 2:
                await journal.changed("r", after)

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            for seq in range(2):
                await journal.append(lease, [chunk(seq)])
            await journal.append(lease, [last(2)], DONE)
    assert read == [0, 1, 2]


async def test_an_event_that_came_before_the_wait_is_not_waited_for_whatever_others_have_written(
    journal: RunJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ultra.stores.journal_changes._MOST_REMEMBERED", 1)
    lease, other = await claimed(journal), await claimed(journal, "other")
    await journal.append(lease, [chunk(0)], None)
    await journal.append(other, [replace(chunk(0), run_id="other")], None)
    with trio.fail_after(10):
        await journal.changed("r", -1)


async def test_who_waits_for_a_run_that_is_removed_does_not_wait_for_ever(journal: RunJournal) -> None:
    lease = await claimed(journal)
    await journal.append(lease, [last(0)], DONE)
    with trio.fail_after(5):
        await journal.changed("r", 0)
        await journal.changed("other", -1)


async def test_many_tasks_write_at_once_and_a_refusal_is_only_for_the_one_it_concerns(
    journal: RunJournal,
) -> None:
    leases = [await claimed(journal, f"r{number}") for number in range(20)]
    refused: list[str] = []

    async def write(lease: Lease, number: int) -> None:
        if number % 5 == 0:
            lease = Lease(run_id=lease.run_id, holder="nobody", number=1)
        try:
            for seq in range(5):
                await journal.append(lease, [chunk(seq)])
        except LeaseLost:
            refused.append(lease.run_id)

    async with trio.open_nursery() as nursery:
        for number, lease in enumerate(leases):
            nursery.start_soon(write, lease, number)
    assert sorted(refused) == ["r0", "r10", "r15", "r5"]
    for number in range(20):
        assert await seqs(journal, f"r{number}") == ([] if number % 5 == 0 else [0, 1, 2, 3, 4])


async def test_a_writer_that_is_cancelled_leaves_the_others_their_writes(journal: RunJournal) -> None:
    leases = [await claimed(journal, f"r{number}") for number in range(10)]

    async def write(lease: Lease, scope: trio.CancelScope) -> None:
        with scope:
            await journal.append(lease, [chunk(0)])

    scopes = [trio.CancelScope() for _ in leases]
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            for lease, scope in zip(leases, scopes, strict=True):
                nursery.start_soon(write, lease, scope)
            await trio.lowlevel.checkpoint()
            for scope in scopes[::2]:
                scope.cancel()
        for number, lease in enumerate(leases):
            if number % 2:
                assert await seqs(journal, lease.run_id) == [0]
        await journal.append(await claimed(journal, "later"), [chunk(0)])


async def test_it_may_be_closed_twice(journal: RunJournal) -> None:
    await claimed(journal)
    await journal.aclose()
    await journal.aclose()
