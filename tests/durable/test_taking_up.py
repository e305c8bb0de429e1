"""Runs are taken up again when an orchestrator with their journal is entered; what is paid is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from msgspec import Struct

from helpers.event_loops import on_every_loop
from helpers.run_events import orchestrator_of, text_of
from ultra import BestOf, ModelRequest, RunOptions
from ultra.errors import SubmittedRunFailed
from ultra.messages.events import Chunk, Event, ModelResponded, RunCompleted, RunFailed, StageStarted
from ultra.messages.runs import RunSpec, StrategySpec
from ultra.stores.journal_contract import Claim, Lease, RunRecord
from ultra.stores.journal_memory import MemoryJournal
from ultra.strategies import Answer
from ultra.testing import FakeAnswer, FakeModel

if TYPE_CHECKING:
    from pathlib import Path

    from ultra import MultiLLMOrchestrator
    from ultra.strategies import RunContext

ENDS = (RunCompleted, RunFailed)


class Clock:
    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


async def read(orchestrator: MultiLLMOrchestrator, run_id: str) -> list[Event]:
    with trio.fail_after(20):
        async with orchestrator.follow(run_id) as run:
            return [event async for event in run]


def assert_one_run(events: list[Event]) -> None:
    assert [event.seq for event in events] == list(range(len(events)))
    assert [isinstance(event, ENDS) for event in events] == [False] * (len(events) - 1) + [True]
    times = [event.time for event in events]
    assert times == sorted(times)
    for event in events:
        if isinstance(event, ModelResponded):
            text = text_of(events[: event.seq], event.stage, event.model_name, sample=event.sample)
            assert text == event.response.content


async def interrupted(journal: MemoryJournal, *models: FakeModel, **arguments: Any) -> str:
    """Submit a run, and close the orchestrator without grace when the last of the models is asked."""
    async with orchestrator_of(*models, journal=journal, cache_enabled=False) as orchestrator:
        run_id = await orchestrator.submit("Capital of France?", **arguments)
        with trio.fail_after(5):
            await models[-1].asked.wait()
            for model in models[:-1]:  # the answers of those that are not gated are in the journal
                while any(call.outcome == "running" for call in model.calls):  # noqa: ASYNC110 - no event
                    await trio.sleep(0.001)
            answered = sum(call.outcome == "answered" for model in models for call in model.calls)
            while len(await journal.answer_keys(run_id)) < answered:  # noqa: ASYNC110 - as above
                await trio.sleep(0.001)
        await orchestrator.aclose(grace=0)
    return run_id


async def test_paid_answers_are_used_and_only_the_others_are_asked_for() -> None:
    journal = MemoryJournal()
    first = FakeModel("Paris.", name="a"), FakeModel("Lyon.", name="b", gated=True)
    run_id = await interrupted(journal, *first, stages=["initial", "synthesis"])
    assert [event for event in await journal.read(run_id) if isinstance(event, ENDS)] == []
    second = FakeModel("merged", name="a"), FakeModel("Lyon.", name="b")
    async with orchestrator_of(*second, journal=journal, cache_enabled=False) as orchestrator:
        events = await read(orchestrator, run_id)
        record = await orchestrator.get_run(run_id)
    assert_one_run(events)
    assert (record.state, record.executions) == ("completed", 2)
    last = events[-1]
    assert isinstance(last, RunCompleted)
    assert {name: str(answer) for name, answer in last.result["initial_responses"].items()} == {
        "a": "Paris.",
        "b": "Lyon.",
    }
    assert str(last.result.final_synthesis) == "merged"
    assert [call.prompt for call in second[1].calls] == ["Capital of France?"]
    assert len(second[0].calls) == 1  # the synthesis alone
    assert len([event for event in events if isinstance(event, StageStarted)]) == 3


async def test_an_answer_whose_text_was_told_is_not_told_again() -> None:
    journal = MemoryJournal()
    first = FakeModel(FakeAnswer("Par", "is."), name="a"), FakeModel(name="b", gated=True)
    run_id = await interrupted(journal, *first, stages=["initial"])
    second = FakeModel(name="a"), FakeModel(name="b")
    async with orchestrator_of(*second, journal=journal, cache_enabled=False) as orchestrator:
        events = await read(orchestrator, run_id)
    told = [event.text for event in events if isinstance(event, Chunk) and event.model_name == "a"]
    assert "".join(told) == "Paris."
    assert_one_run(events)


async def test_what_was_half_streamed_begins_with_a_restart() -> None:
    journal = MemoryJournal()
    pieces = FakeAnswer("Half ", "and never more", piece_seconds=60)
    model = FakeModel(pieces, name="a")
    async with orchestrator_of(model, journal=journal) as orchestrator:
        run_id = await orchestrator.submit("?", ["initial"])
        async with orchestrator.follow(run_id) as run:
            async for event in run:
                if isinstance(event, Chunk):
                    break
        await orchestrator.aclose(grace=0)
    async with orchestrator_of(FakeModel("Whole.", name="a"), journal=journal) as orchestrator:
        events = await read(orchestrator, run_id)
    chunks = [(event.text, event.restart) for event in events if isinstance(event, Chunk)]
    assert chunks == [("Half ", False), ("Whole.", True)]
    assert_one_run(events)


@on_every_loop
async def test_runs_left_by_a_closed_orchestrator_go_on_at_the_next_start(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/runs.db"
    gated = FakeModel(name="a", gated=True)
    async with orchestrator_of(gated, journal=store) as orchestrator:
        run_ids = [await orchestrator.submit(f"{number}?") for number in range(3)]
        await gated.asked.wait()
        await orchestrator.aclose(grace=0)
    assert gated.calls
    async with orchestrator_of(FakeModel(name="a"), journal=store) as orchestrator:
        for run_id in run_ids:
            async with orchestrator.follow(run_id) as run:
                assert (await run.result()).run_id == run_id


async def test_closing_with_grace_lets_runs_end() -> None:
    journal = MemoryJournal()
    model = FakeModel(name="a", gated=True)
    orchestrator = orchestrator_of(model, journal=journal)
    async with trio.open_nursery() as nursery, orchestrator:
        run_id = await orchestrator.submit("?")
        await model.asked.wait()
        nursery.start_soon(orchestrator.aclose, 60)
        await trio.testing.wait_all_tasks_blocked()
        model.gate.set()
    assert (await orchestrator.get_run(run_id)).state == "completed"


async def test_an_error_in_the_block_leaves_the_runs_for_the_next_start() -> None:
    journal = MemoryJournal()
    model = FakeModel(name="a", gated=True)
    run_id = ""
    with pytest.raises(RuntimeError, match="of the block"):  # noqa: PT012
        async with orchestrator_of(model, journal=journal) as orchestrator:
            run_id = await orchestrator.submit("?")
            await model.asked.wait()
            raise RuntimeError("of the block")
    async with orchestrator_of(FakeModel(name="a"), journal=journal) as orchestrator:
        assert_one_run(await read(orchestrator, run_id))


async def test_a_run_whose_model_is_gone_fails_with_a_code() -> None:
    journal = MemoryJournal()
    run_id = await interrupted(journal, FakeModel(name="a"), FakeModel(name="b", gated=True))
    async with orchestrator_of(FakeModel(name="a"), journal=journal) as orchestrator:
        events = await read(orchestrator, run_id)
        record = await orchestrator.get_run(run_id)
        async with orchestrator.follow(run_id) as run:
            with pytest.raises(SubmittedRunFailed, match="'b'"):
                await run.result()
    assert_one_run(events)
    assert (record.state, record.code) == ("failed", "ModelGone")


async def test_a_run_whose_strategy_is_gone_fails_with_a_code() -> None:
    journal = MemoryJournal()
    spec = RunSpec(
        request=ModelRequest.of("?"),
        models=("a",),
        strategy=StrategySpec("of_another_package"),
        options=RunOptions(),
        secret=b"s" * 32,
    )
    await journal.add(RunRecord(run_id="r", spec=spec))
    async with orchestrator_of(FakeModel(name="a"), journal=journal) as orchestrator:
        await read(orchestrator, "r")
        assert (await orchestrator.get_run("r")).code == "StrategyGone"


class Own(Struct, frozen=True):
    async def run(self, context: RunContext) -> Answer:
        with context.step("initial"):
            return Answer((await context.ask_all(context.request))[0], "selected")


@pytest.mark.parametrize(("strategy", "code"), [(Own(), None), (BestOf(), "StrategyGone")])
async def test_an_own_strategy_is_taken_from_the_orchestrator_that_takes_up(strategy: Any, code: Any) -> None:
    journal = MemoryJournal()
    model = FakeModel(name="a", gated=True)
    async with orchestrator_of(model, journal=journal, strategy=Own()) as orchestrator:
        run_id = await orchestrator.submit("?")
        await model.asked.wait()
        await orchestrator.aclose(grace=0)
    async with orchestrator_of(FakeModel(name="a"), journal=journal, strategy=strategy) as orchestrator:
        await read(orchestrator, run_id)
        assert (await orchestrator.get_run(run_id)).code == code


async def test_a_run_that_another_process_holds_is_not_executed_twice() -> None:
    clock = Clock()
    journal = MemoryJournal(lease=3.0, now=clock)
    spec = RunSpec(
        request=ModelRequest.of("?"), models=("a",), strategy=StrategySpec("best_of"), secret=b"s" * 32
    )
    claim = await journal.add(RunRecord(run_id="r", spec=spec), "another process")
    assert isinstance(claim, Claim)
    model = FakeModel(name="a")
    async with orchestrator_of(model, journal=journal) as orchestrator:
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert model.calls == []
        clock.time = 3.1  # it has died
        assert_one_run(await read(orchestrator, "r"))
    assert len(model.calls) == 1


async def test_an_execution_that_has_lost_its_lease_writes_nothing_more() -> None:
    clock = Clock()
    journal = MemoryJournal(lease=0.3, now=clock)
    model = FakeModel(name="a", gated=True)
    async with orchestrator_of(model, journal=journal) as orchestrator:
        run_id = await orchestrator.submit("?")
        await model.asked.wait()
        clock.time = 0.31  # it did not come to renew it
        [claim] = await journal.claim("another process", limit=1)
        before = await journal.read(run_id)
        with trio.fail_after(5):
            while model.cancelled == 0:  # noqa: ASYNC110 - as above
                await trio.sleep(0.01)
        assert await journal.read(run_id) == before
        await journal.append(
            Lease(run_id=run_id, holder=claim.lease.holder, number=claim.lease.number),
            [RunFailed(run_id=run_id, seq=len(before), error="E", message="m")],
        )


async def test_a_run_of_another_process_is_cancelled_by_it() -> None:
    journal = MemoryJournal(lease=0.3)
    model = FakeModel(name="a", gated=True)
    async with orchestrator_of(model, journal=journal) as one:
        run_id = await one.submit("?")
        await model.asked.wait()
        other = orchestrator_of(FakeModel(name="a"), journal=journal)
        assert (await other.cancel_run(run_id)).state in {"queued", "running"}
        events = await read(one, run_id)
    assert_one_run(events)
    assert (await journal.get(run_id) or one).state == "cancelled"  # type: ignore[union-attr]


async def test_the_time_of_earlier_executions_counts(mock_clock: trio.testing.MockClock) -> None:
    mock_clock.autojump_threshold = 0
    journal = MemoryJournal(now=trio.current_time)
    pieces = FakeAnswer("One ", "two", piece_seconds=6)
    run_id, events = "", list[Event]()
    for number in range(2):
        async with orchestrator_of(FakeModel(pieces, name="a", seconds=1), journal=journal) as orchestrator:
            if number == 0:
                run_id = await orchestrator.submit("?", ["initial"], timeout=7.5)
                async with orchestrator.follow(run_id) as run:
                    async for event in run:
                        if isinstance(event, Chunk):
                            break  # after a second
                await orchestrator.aclose(grace=0)
                await trio.sleep(1000)  # nobody executes it
            else:
                events = await read(orchestrator, run_id)
    assert isinstance(events[-1], RunFailed)
    assert events[-1].error == "QuorumNotReached"
    assert 7.4 < events[-1].time < 7.6
