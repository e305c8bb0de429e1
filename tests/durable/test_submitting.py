"""Submitted runs: accepted into a journal, executed, followed, cancelled."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from msgspec import Struct

from helpers.event_loops import on_every_loop
from helpers.run_events import assert_well_formed, orchestrator_of
from ultra import (
    BadCall,
    BestOf,
    MultiLLMOrchestrator,
    OrchestratorClosed,
    OrchestratorInUse,
    Stage,
    UsageError,
    Vote,
)
from ultra.errors import (
    IdempotencyConflict,
    JournalUnavailable,
    ModelError,
    RunCancelled,
    SubmittedRunFailed,
    UnknownRun,
)
from ultra.messages.events import Chunk, RunCompleted, RunFailed
from ultra.stores.journal_memory import MemoryJournal
from ultra.stores.journal_sqlite import SqliteJournal
from ultra.strategies import Answer
from ultra.testing import FakeAnswer, FakeModel

if TYPE_CHECKING:
    from pathlib import Path

    from ultra.messages.events import Event
    from ultra.stores.journal_contract import RunRecord
    from ultra.strategies import RunContext

ONE_ANSWER = ["initial", "synthesis"]


async def read(orchestrator: MultiLLMOrchestrator, run_id: str, after: int = -1) -> list[Event]:
    async with orchestrator.follow(run_id, after=after) as run:
        return [event async for event in run]


@pytest.fixture(params=["memory", "sqlite"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> MemoryJournal | SqliteJournal:
    return MemoryJournal() if request.param == "memory" else SqliteJournal(tmp_path / "runs.db")


@on_every_loop
async def test_a_submitted_run_is_followed_to_its_result(tmp_path: Path) -> None:
    models = FakeModel("Paris.", name="a"), FakeModel("Paris!", name="b")
    async with orchestrator_of(*models, journal=f"sqlite:///{tmp_path}/runs.db") as orchestrator:
        run_id = await orchestrator.submit("Capital of France?", ONE_ANSWER)
        async with orchestrator.follow(run_id) as run:
            events = [event async for event in run]
            result = await run.result()
        assert_well_formed(events)
        assert isinstance(events[-1], RunCompleted)
        assert result == events[-1].result
        assert result.run_id == run_id
        assert str(result.final_synthesis) in {"Paris.", "Paris!"}
        record = await orchestrator.get_run(run_id)
        assert (record.state, record.events, record.executions) == ("completed", len(events), 1)
        assert [each.run_id for each in await orchestrator.list_runs(states=["completed"])] == [run_id]
        await orchestrator.delete_run(run_id)
        with pytest.raises(UnknownRun):
            await orchestrator.get_run(run_id)


@on_every_loop
async def test_an_orchestrator_that_is_not_entered_reads_the_runs_of_another(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/runs.db"
    async with orchestrator_of(FakeModel(name="a"), journal=store) as orchestrator:
        run_id = await orchestrator.submit("?")
        expected = await read(orchestrator, run_id)
    reader = MultiLLMOrchestrator(journal=store)
    assert await read(reader, run_id) == expected
    assert (await reader.get_run(run_id)).state == "completed"
    await reader.aclose()


async def test_a_follower_reads_while_the_run_goes_on_and_may_come_back(
    journal: MemoryJournal | SqliteJournal,
) -> None:
    model = FakeModel(FakeAnswer("One ", "two ", "three"), name="a", gated=True)
    async with orchestrator_of(model, journal=journal) as orchestrator:
        run_id = await orchestrator.submit("?", ["initial"])
        seen: list[Event] = []
        async with orchestrator.follow(run_id) as run:
            seen.append(await anext(aiter(run)))
        model.gate.set()
        async with orchestrator.follow(run_id, after=seen[-1].seq) as run:
            seen += [event async for event in run]
        assert seen == await read(orchestrator, run_id)
        assert_well_formed(seen)
        assert await read(orchestrator, run_id, after=seen[-1].seq) == []
        assert "".join(event.text for event in seen if isinstance(event, Chunk)) == "One two three"


class CountingJournal(MemoryJournal):
    """Counts how often it is read."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[str] = []

    async def get(self, run_id: str) -> RunRecord | None:
        self.reads.append("run")
        return await super().get(run_id)

    async def read(self, run_id: str, after: int = -1, limit: int = 256) -> list[Event]:
        self.reads.append("events")
        return await super().read(run_id, after, limit)


async def test_a_follower_looks_once_for_each_piece_that_was_written() -> None:
    journal = CountingJournal()
    model = FakeModel(FakeAnswer("One ", "two ", "three"), name="a", gated=True)
    async with orchestrator_of(model, journal=journal) as orchestrator:
        run_id = await orchestrator.submit("?", ["initial"])
        journal.reads.clear()
        pieces = 1
        async with orchestrator.follow(run_id) as run:
            await trio.testing.wait_all_tasks_blocked()
            model.gate.set()
            async for _ in run:
                pieces += not run._unread
        assert journal.reads.count("run") == 1
        assert journal.reads.count("events") <= pieces


async def test_a_follower_that_could_not_begin_may_be_entered_again() -> None:
    class Shaky(MemoryJournal):
        fails = False

        async def get(self, run_id: str) -> RunRecord | None:
            if self.fails:
                self.fails = False
                raise JournalUnavailable("runs.db", OSError("locked"))
            return await super().get(run_id)

    journal = Shaky()
    async with orchestrator_of(FakeModel("One", name="a"), journal=journal) as orchestrator:
        follower = orchestrator.follow(await orchestrator.submit("?", ["initial"]))
        journal.fails = True
        with pytest.raises(JournalUnavailable):
            await follower.__aenter__()
        async with follower as run:
            assert (await run.result()).run_id == run.run_id


async def test_who_has_all_events_of_a_run_that_has_ended_waits_for_nothing(
    journal: MemoryJournal | SqliteJournal, mock_clock: trio.testing.MockClock
) -> None:
    async with orchestrator_of(FakeModel("One", name="a"), journal=journal) as orchestrator:
        run_id = await orchestrator.submit("?", ["initial"])
        seen = await read(orchestrator, run_id)
        started = trio.current_time()
        assert await read(orchestrator, run_id, after=seen[-1].seq) == []
        assert await read(orchestrator, run_id, after=seen[-1].seq + 7) == []
        assert trio.current_time() == started


async def test_what_a_reader_gets_is_in_the_journal_before(journal: MemoryJournal | SqliteJournal) -> None:
    model = FakeModel(FakeAnswer(*(f"word{number} " for number in range(50))), name="a")
    async with orchestrator_of(model, journal=journal) as orchestrator:
        run_id = await orchestrator.submit("?")
        async with orchestrator.follow(run_id) as run:
            async for event in run:
                assert (await journal.read(run_id, event.seq - 1, 1)) == [event]


async def test_two_submissions_with_one_key_are_one_run(journal: MemoryJournal | SqliteJournal) -> None:
    model = FakeModel(name="a")
    async with orchestrator_of(model, journal=journal) as orchestrator:
        first = await orchestrator.submit("?", idempotency_key="k", owner="team")
        assert await orchestrator.submit("?", idempotency_key="k", owner="team") == first
        other = await orchestrator.submit("?", idempotency_key="k")
        assert other != first
        with pytest.raises(IdempotencyConflict, match="another request"):
            await orchestrator.submit("Another one?", idempotency_key="k")
        await read(orchestrator, first)
        assert await orchestrator.submit("?", idempotency_key="k", owner="team") == first


async def test_a_cancelled_run_ends_once_and_tells_so(journal: MemoryJournal | SqliteJournal) -> None:
    model = FakeModel(name="a", gated=True)
    async with orchestrator_of(model, journal=journal) as orchestrator:
        run_id = await orchestrator.submit("?")
        await model.asked.wait()
        await orchestrator.cancel_run(run_id)
        events = await read(orchestrator, run_id)
        assert isinstance(events[-1], RunFailed)
        assert events[-1].error == "RunCancelled"
        assert [event.seq for event in events] == list(range(len(events)))
        async with orchestrator.follow(run_id) as run:
            with pytest.raises(RunCancelled):
                await run.result()
        record = await orchestrator.cancel_run(run_id)
        assert (record.state, record.events) == ("cancelled", len(events))
        assert model.cancelled == 1
        with pytest.raises(UnknownRun):
            await orchestrator.cancel_run("unknown")


async def test_a_run_that_fails_has_its_code(journal: MemoryJournal | SqliteJournal) -> None:
    model = FakeModel(ModelError("no", kind="auth"), name="a")
    async with orchestrator_of(model, journal=journal) as orchestrator:
        run_id = await orchestrator.submit("?")
        async with orchestrator.follow(run_id) as run:
            with pytest.raises(SubmittedRunFailed) as caught:
                await run.result()
        assert caught.value.code == "QuorumNotReached"
        record = await orchestrator.get_run(run_id)
        assert (record.state, record.code) == ("failed", "QuorumNotReached")


class EmittingStrategy:
    """Asks one model, and emits an event of its own before."""

    def __init__(self, event: Event) -> None:
        self.event = event

    async def run(self, context: RunContext) -> Answer:
        context.emit(self.event)
        response = await context.ask(context.models[0], context.request)
        return Answer(response)


@pytest.mark.parametrize("text", ["cut in two: \ud83d", "\udfff"])
async def test_a_run_ends_whose_model_fails_with_words_that_cannot_be_written(
    journal: MemoryJournal | SqliteJournal, text: str
) -> None:
    model = FakeModel(ModelError(text, retryable=False), name="a")
    async with orchestrator_of(model, journal=journal) as orchestrator:
        with trio.fail_after(5):
            *_, last = await read(orchestrator, await orchestrator.submit("?"))
    assert isinstance(last, RunFailed)
    assert last.error == "QuorumNotReached"
    assert text.encode("utf-8", "replace").decode() in last.message


async def test_a_run_ends_with_an_event_that_is_no_value(journal: MemoryJournal | SqliteJournal) -> None:
    bad = Chunk(stage="s", model_name="a", text="\ud800")
    orchestrator = MultiLLMOrchestrator(journal=journal, strategy=EmittingStrategy(bad))
    orchestrator.register_model("a", FakeModel("Paris.", name="a"))
    async with orchestrator:
        with trio.fail_after(5):
            *_, last = await read(orchestrator, await orchestrator.submit("?"))
    assert isinstance(last, RunFailed)
    assert last.error == "BadCall"
    assert "an event of the run cannot be kept" in last.message


async def test_a_run_that_is_under_way_is_not_deleted(journal: MemoryJournal | SqliteJournal) -> None:
    model = FakeModel(name="a", gated=True)
    async with orchestrator_of(model, journal=journal) as orchestrator:
        run_id = await orchestrator.submit("?")
        with pytest.raises(BadCall, match="cancel it first"):
            await orchestrator.delete_run(run_id)
        with pytest.raises(UnknownRun):
            await orchestrator.delete_run("unknown")
        model.gate.set()


async def test_an_output_type_gives_plain_json(journal: MemoryJournal | SqliteJournal) -> None:
    class City(Struct):
        name: str

    async with orchestrator_of(FakeModel('{"name": "Paris"}', name="a"), journal=journal) as orchestrator:
        run_id = await orchestrator.submit("?", output=City, strategy=BestOf())
        async with orchestrator.follow(run_id) as run:
            assert (await run.result()).output == {"name": "Paris"}


class Longest(Struct, frozen=True):
    async def run(self, context: RunContext) -> Answer:
        with context.step("initial"):
            responses = await context.ask_all(context.request)
        return Answer(max(responses, key=lambda response: len(response.content)), "selected")


def longest(candidate: str) -> float:
    return float(len(candidate))


@pytest.mark.parametrize(
    "arguments",
    [
        {"strategy": Longest()},
        {"strategy": BestOf(verify=longest)},
        {"stages": ["initial", Stage(name="extra", prompt=lambda responses: "?")]},
        {"stages": [Stage(name="initial", system="Be brief.")]},
        {"tags": {"client": print}},
    ],
)
async def test_what_is_no_value_is_refused_when_it_is_submitted(arguments: dict[str, Any]) -> None:
    model = FakeModel(name="a")
    async with orchestrator_of(model, journal="memory") as orchestrator:
        with pytest.raises(BadCall, match="value"):
            await orchestrator.submit("?", **arguments)
        assert await orchestrator.list_runs() == []
    assert model.calls == []


async def test_the_orchestrators_own_strategy_need_be_no_value() -> None:
    models = FakeModel("long answer", name="a"), FakeModel("short", name="b")
    async with orchestrator_of(*models, journal="memory", strategy=Longest()) as orchestrator:
        run_id = await orchestrator.submit("?")
        async with orchestrator.follow(run_id) as run:
            assert str((await run.result()).final_synthesis) == "long answer"


async def test_a_strategy_that_is_a_value_may_be_an_object() -> None:
    models = [FakeModel("Paris.", name=name) for name in "abc"]
    async with orchestrator_of(*models, journal="memory") as orchestrator:
        run_id = await orchestrator.submit("?", strategy=Vote())
        async with orchestrator.follow(run_id) as run:
            assert (await run.result()).strategy == "vote"


@pytest.mark.parametrize(
    "arguments",
    [
        {"idempotency_key": ""},
        {"idempotency_key": "\ud800"},
        {"owner": 3},
        {"owner": "\ud800"},
        {"models": ["nobody"]},
    ],
)
async def test_wrong_arguments_are_refused(arguments: dict[str, Any]) -> None:
    async with orchestrator_of(FakeModel(name="a"), journal="memory") as orchestrator:
        with pytest.raises(BadCall):
            await orchestrator.submit("?", **arguments)
        with pytest.raises(BadCall, match="seq"):
            orchestrator.follow("r", after=-2)


async def test_without_a_journal_or_without_actors_nothing_is_submitted() -> None:
    async with orchestrator_of(FakeModel(name="a")) as orchestrator:
        with pytest.raises(UsageError, match="no journal"):
            await orchestrator.submit("?")
        with pytest.raises(UsageError, match="no journal"):
            orchestrator.follow("r")
    with_journal = orchestrator_of(FakeModel(name="a"), journal="memory")
    with pytest.raises(OrchestratorClosed, match="entered"):
        await with_journal.submit("?")
    async with with_journal:
        pass
    with pytest.raises(OrchestratorClosed):
        await with_journal.submit("?")


async def test_an_overridden_process_responses_is_no_value() -> None:
    class Own(MultiLLMOrchestrator):
        async def process_responses(self, *args: Any, **kwargs: Any) -> Any:
            return await super().process_responses(*args, **kwargs)

    own = Own(journal="memory")
    own.register_model("a", FakeModel())
    async with own:
        with pytest.raises(UsageError, match="overrides process_responses"):
            await own.submit("?")


@pytest.mark.parametrize("journal", ["redis", "sqlite:///", 3])
def test_a_journal_that_is_none_is_refused(journal: Any) -> None:
    with pytest.raises(BadCall):
        MultiLLMOrchestrator(journal=journal)


def test_a_journal_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(JournalUnavailable):
        MultiLLMOrchestrator(journal=f"sqlite:///{tmp_path}/no/runs.db")


async def test_a_follower_outside_of_its_block_is_refused() -> None:
    orchestrator = MultiLLMOrchestrator(journal="memory")
    run = orchestrator.follow("r")
    with pytest.raises(BadCall, match="block"):
        await run.result()
    with pytest.raises(UnknownRun):
        async with orchestrator.follow("r"):
            pass


async def test_a_run_that_is_deleted_ends_its_followers() -> None:
    async with orchestrator_of(FakeModel(name="a"), journal="memory") as orchestrator:
        run_id = await orchestrator.submit("?")
        async with orchestrator.follow(run_id) as run:
            await run.result()
            await orchestrator.delete_run(run_id)
            with pytest.raises(UnknownRun):
                await run.result()


async def test_leaving_a_follower_leaves_the_run() -> None:
    model = FakeModel(name="a", gated=True)
    async with orchestrator_of(model, journal="memory") as orchestrator:
        run_id = await orchestrator.submit("?")
        async with orchestrator.follow(run_id):
            await model.asked.wait()
        with trio.move_on_after(0):
            async with orchestrator.follow(run_id) as run:
                await run.result()
        model.gate.set()
        assert isinstance((await read(orchestrator, run_id))[-1], RunCompleted)


@pytest.mark.parametrize("left", [True, False])
async def test_what_ends_the_orchestrator_ends_all_of_it_though_it_is_cancelled_while_runs_go_on(
    tmp_path: Path, *, left: bool
) -> None:
    model = FakeModel(name="a", gated=True)
    orchestrator = orchestrator_of(model, journal=f"sqlite:///{tmp_path}/runs.db")
    log = tmp_path / "runs.db-wal"
    with trio.CancelScope() as scope:
        async with orchestrator:
            await orchestrator.submit("?")
            await model.asked.wait()
            assert log.exists()
            if left:
                scope.cancel()  # heard in the grace for submitted runs
            else:
                with trio.CancelScope() as closing:
                    closing.cancel()
                    await orchestrator.aclose(grace=60)
                with trio.fail_after(5):
                    await orchestrator._lifespan.stopped()
    assert scope.cancelled_caught is left
    assert not log.exists()  # SQLite removes it with the last connection


def test_who_is_refused_to_enter_does_not_become_the_one_that_submitted_runs_call() -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    async def client(_: str) -> str:
        loops.append(asyncio.get_running_loop())
        return "fine"

    async def enter_too() -> None:
        with pytest.raises(OrchestratorInUse):
            await orchestrator.__aenter__()

    async def main() -> asyncio.AbstractEventLoop:
        async with orchestrator:
            await asyncio.to_thread(asyncio.run, enter_too())
            run_id = await orchestrator.submit("?", strategy="vote")
            async with orchestrator.follow(run_id) as run:
                await run.result()
        return asyncio.get_running_loop()

    orchestrator = orchestrator_of(journal="memory")
    orchestrator.register_model(
        "a", client
    )  # where no loop runs, so that it is called on that of who entered
    loop = asyncio.run(main())
    assert loops == [loop]
