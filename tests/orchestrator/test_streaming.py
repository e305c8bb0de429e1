"""Runs that are read while they go on: what is told, and to whom."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from helpers.run_events import assert_well_formed, orchestrator_of, read_all, text_of, words
from ultra import (
    BadCall,
    ModelError,
    MultiLLMOrchestrator,
    QuorumNotReached,
    Stage,
    StageFailed,
)
from ultra.messages.events import Chunk, Event, ModelFailed, ModelRetrying, RunCompleted, RunFailed
from ultra.testing import FakeAnswer, FakeModel

if TYPE_CHECKING:
    from ultra.orchestrator.streams import RunStream

# --- what is told ------------------------------------------------------------------------------------


async def test_every_answer_is_told_in_full_before_it_is_reported(autojump_clock: MockClock) -> None:
    streaming = FakeModel(FakeAnswer("to", "ken", "s"), name="s", seconds=0.1, piece_seconds=0.1)
    orchestrator = orchestrator_of(streaming, FakeModel(name="plain", streams=False))
    async with orchestrator, orchestrator.stream_responses("Q") as run:
        events = await read_all(run)
        result = await run.result()
    assert_well_formed(events)
    pieces = [e.text for e in events if isinstance(e, Chunk) and (e.stage, e.model_name) == ("initial", "s")]
    assert pieces == ["to", "ken", "s"]
    assert isinstance(events[-1], RunCompleted)
    assert events[-1].result is result
    assert text_of(events, "initial", "plain") == "plain: Q"


async def test_without_chunks_models_are_asked_for_whole_answers_and_all_else_is_told() -> None:
    model = FakeModel(FakeAnswer("to", "ken", "s"), name="s")
    orchestrator = orchestrator_of(model)
    async with orchestrator, orchestrator.stream_responses("Q", chunks=False) as run:
        events = await read_all(run)
        result = await run.result()

    assert [event.seq for event in events] == list(range(len(events)))
    assert not [event for event in events if isinstance(event, Chunk)]
    assert {call.streamed for call in model.calls} == {False}
    assert isinstance(events[-1], RunCompleted)
    assert events[-1].result is result
    assert result.final_synthesis is not None
    assert result.final_synthesis.content == "tokens"


def test_chunks_is_true_or_false() -> None:
    with pytest.raises(BadCall, match=r"chunks is 'no'; it must be True or False"):
        orchestrator_of(FakeModel()).stream_responses("Q", chunks="no")  # type: ignore[arg-type]


async def test_streamed_and_plain_results_are_equal(autojump_clock: MockClock) -> None:
    def make() -> MultiLLMOrchestrator:
        return orchestrator_of(
            FakeModel(FakeAnswer("a ", "b ", "c"), name="s", seconds=0.1, piece_seconds=0.1).fail(
                after_pieces=2
            ),
            FakeModel(name="plain", streams=False, failures=[RuntimeError("once")]),
            FakeModel(name="broken", failures=[ModelError("no", kind="auth")]),
            cache_enabled=False,
        )

    plain = await make().process_responses("Q")
    async with make().stream_responses("Q") as run:
        events = await read_all(run)
    assert_well_formed(events)
    streamed = await run.result()
    assert words(streamed).keys() == words(plain).keys()
    assert words(streamed)["initial"] == words(plain)["initial"]
    assert (streamed.status, streamed.synthesis_source) == (plain.status, plain.synthesis_source)
    assert [f.model_name for f in streamed.failures] == [f.model_name for f in plain.failures]


async def test_a_cached_run_is_told_like_any_other() -> None:
    orchestrator = orchestrator_of(
        FakeModel(FakeAnswer("a", "b"), name="s"), FakeModel(name="plain", streams=False)
    )
    async with orchestrator:
        first = await orchestrator.process_responses("Q")
        async with orchestrator.stream_responses("Q") as run:
            events = await read_all(run)
            second = await run.result()
    assert_well_formed(events)
    assert words(first) == words(second)
    assert all(response.cached for response in second.initial_responses.values())


async def test_a_retry_after_text_was_sent_is_shown_as_a_restart() -> None:
    fake = FakeModel(FakeAnswer("a", "b", "c"), name="s").fail(after_pieces=2)
    async with orchestrator_of(fake).stream_responses("Q", stages=["initial"]) as run:
        events = []
        async for event in run:
            events.append(event)
            await wait_all_tasks_blocked()
    assert_well_formed(events)
    assert text_of(events, "initial", "s") == "abc"


async def test_a_restart_that_the_reader_saw_coming_has_its_flag(autojump_clock: MockClock) -> None:
    fake = FakeModel(FakeAnswer("a", "b", "c"), name="s", seconds=1, piece_seconds=1)
    fake.fail(ConnectionError("the stream broke"), after_pieces=2)
    async with orchestrator_of(fake).stream_responses("Q", stages=["initial"]) as run:
        events = await read_all(run)
    shown = [
        (event.text, event.restart) if isinstance(event, Chunk) else event.kind
        for event in events
        if isinstance(event, (Chunk, ModelRetrying))
    ]
    assert shown == [("a", False), ("b", False), "connection", ("a", True), ("b", False), ("c", False)]


async def test_a_retry_is_told_before_the_wait_for_it(autojump_clock: MockClock) -> None:
    busy = [ModelError("slow down", kind="rate_limit", retry_after=after) for after in (30.0, 7.0)]
    orchestrator = orchestrator_of(FakeModel(name="a", failures=busy))
    async with orchestrator, orchestrator.stream_responses("Q", stages=["initial"]) as run:
        events, read_at = [], []
        async for event in run:
            events.append(event)
            read_at.append(trio.current_time())
    assert_well_formed(events)
    retries = [event for event in events if isinstance(event, ModelRetrying)]
    assert [(e.model_name, e.attempt, e.wait, e.kind, e.message) for e in retries] == [
        ("a", 1, 30.0, "rate_limit", "slow down [rate_limit]"),
        ("a", 2, 7.0, "rate_limit", "slow down [rate_limit]"),
    ]
    assert [read_at[event.seq] - read_at[0] for event in retries] == pytest.approx([0.0, 30.0])


async def test_a_run_that_joins_another_ones_call_is_told_of_its_retries(autojump_clock: MockClock) -> None:
    busy = ModelError("slow down", kind="rate_limit", retry_after=30.0)
    orchestrator = orchestrator_of(FakeModel(name="a", failures=[busy]))
    async with orchestrator, orchestrator.stream_responses("Q", stages=["initial"]) as first:
        await trio.sleep(10)
        async with orchestrator.stream_responses("Q", stages=["initial"]) as second:
            late = await read_all(second)
        early = await read_all(first)
    waits = [[e.wait for e in events if isinstance(e, ModelRetrying)] for events in (early, late)]
    assert waits == [[30.0], [pytest.approx(20.0)]]


async def test_an_attempt_that_nothing_follows_is_no_retry() -> None:
    broken = FakeModel(name="a", failures=[ModelError("no", kind="auth"), *[ModelError("down")] * 3])
    orchestrator = orchestrator_of(broken, cache_enabled=False)
    for retries in (0, 2):
        async with orchestrator.stream_responses("Q", stages=["initial"]) as run:
            events = await read_all(run)
        assert sum(isinstance(event, ModelRetrying) for event in events) == retries
        assert isinstance(events[-2], ModelFailed)


async def test_a_failed_run_ends_with_run_failed_and_the_result_raises_the_same() -> None:
    broken = FakeModel(name="a", failures=[ModelError("no", kind="auth")])
    orchestrator = orchestrator_of(broken)
    async with orchestrator, orchestrator.stream_responses("Q") as run:
        events = await read_all(run)
        with pytest.raises(QuorumNotReached) as caught:
            await run.result()
    assert isinstance(events[-1], RunFailed)
    assert (events[-1].error, events[-1].message) == ("QuorumNotReached", str(caught.value))


async def test_an_error_in_the_users_own_prompt_ends_the_stream() -> None:
    def broken(_responses: Any) -> str:
        raise ZeroDivisionError("mine")

    orchestrator = orchestrator_of(FakeModel(name="a"))
    stages: list[str | Stage] = ["initial", Stage(name="mine", prompt=broken)]
    async with orchestrator, orchestrator.stream_responses("Q", stages=stages) as run:
        events = await read_all(run)
        with pytest.raises(StageFailed):
            await run.result()
    assert isinstance(events[-1], RunFailed)


# --- readers -----------------------------------------------------------------------------------------


async def test_a_slow_reader_slows_nobody_and_loses_no_text(autojump_clock: MockClock) -> None:
    fast = FakeModel(FakeAnswer(*["x"] * 1000), name="s")
    orchestrator = orchestrator_of(fast)
    async with orchestrator, orchestrator.stream_responses("Q", stages=["initial"]) as run:
        begun = trio.current_time()
        result = await run.result()
        assert trio.current_time() == begun
        events = []
        async for event in run:
            events.append(event)
            await trio.sleep(10)
    assert_well_formed(events)
    assert len(events) == 6
    assert text_of(events, "initial", "s") == result.initial_responses["s"].content == "x" * 1000


async def test_the_events_may_be_read_by_nobody() -> None:
    orchestrator = orchestrator_of(FakeModel(FakeAnswer("a", "b"), name="s"))
    async with orchestrator, orchestrator.stream_responses("Q") as run:
        assert (await run.result()).status == "success"
        assert (await run.result()).status == "success"


async def test_the_events_may_be_read_after_the_block_if_the_run_had_ended_in_it() -> None:
    orchestrator = orchestrator_of(FakeModel(name="a"))
    async with orchestrator, orchestrator.stream_responses("Q") as run:
        await run.result()
    assert_well_formed(await read_all(run))


async def test_a_cancelled_reader_may_come_back(autojump_clock: MockClock) -> None:
    fake = FakeModel(FakeAnswer("a", "b", "c"), name="s", seconds=1, piece_seconds=1)
    orchestrator = orchestrator_of(fake)
    events: list[Event] = []
    async with orchestrator, orchestrator.stream_responses("Q", stages=["initial"]) as run:
        for patience in (0.5, 1, 1, 100):
            with trio.move_on_after(patience):
                async for event in run:
                    events.append(event)  # noqa: PERF401 - it is cut off
    assert_well_formed(events)
    assert text_of(events, "initial", "s") == "abc"


async def test_two_readers_of_one_run_are_refused() -> None:
    gated = FakeModel(name="g", gated=True)
    orchestrator = orchestrator_of(gated)
    async with orchestrator, orchestrator.stream_responses("Q") as run, trio.open_nursery() as nursery:
        nursery.start_soon(read_all, run)
        await wait_all_tasks_blocked()
        with pytest.raises(BadCall, match="another task"):
            await read_all(run)
        gated.gate.set()


async def test_leaving_the_block_cancels_the_calls_and_tells_who_still_waits() -> None:
    gated = FakeModel(name="g", gated=True)
    orchestrator = orchestrator_of(gated)
    told = []

    async def read(run: RunStream) -> None:
        with pytest.raises(BadCall, match="block was left"):
            await read_all(run)
        told.append("reader")

    async def wait(run: RunStream) -> None:
        with pytest.raises(BadCall, match="block was left"):
            await run.result()
        told.append("waiter")

    async with orchestrator, trio.open_nursery() as nursery:
        async with orchestrator.stream_responses("Q") as run:
            nursery.start_soon(read, run)
            nursery.start_soon(wait, run)
            await gated.asked.wait()
            await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
        assert gated.cancelled == 1
    assert sorted(told) == ["reader", "waiter"]
    with pytest.raises(BadCall, match="block was left"):
        await run.result()


async def test_an_exception_in_the_block_leaves_as_itself_and_cancels_the_calls() -> None:
    gated = FakeModel(name="g", gated=True)
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the block is what is tested
        async with orchestrator_of(gated).stream_responses("Q"):
            await gated.asked.wait()
            raise ZeroDivisionError
    assert gated.cancelled == 1


async def test_many_runs_are_read_at_once(autojump_clock: MockClock) -> None:
    fake = FakeModel(FakeAnswer("a", "b", "c"), name="s", seconds=0.1, piece_seconds=0.1)
    orchestrator = orchestrator_of(fake, FakeModel(name="plain", streams=False))
    lengths = []

    async def one(number: int) -> None:
        await trio.sleep(number * 0.05)
        async with orchestrator.stream_responses(f"Q{number % 3}") as run:
            events = await read_all(run)
            assert_well_formed(events)
            lengths.append(len(events))

    async with orchestrator, trio.open_nursery() as nursery:
        for number in range(30):
            nursery.start_soon(one, number)
    assert len(lengths) == 30


async def test_who_joins_a_call_in_the_middle_gets_the_text_so_far(autojump_clock: MockClock) -> None:
    fake = FakeModel(FakeAnswer("a", "b", "c"), name="s", seconds=1, piece_seconds=1)
    orchestrator = orchestrator_of(fake)
    async with orchestrator, orchestrator.stream_responses("Q", stages=["initial"]) as first:
        await trio.sleep(2.5)
        async with orchestrator.stream_responses("Q", stages=["initial"]) as second:
            late = await read_all(second)
        early = await read_all(first)
    assert_well_formed(early)
    assert_well_formed(late)
    assert [event.text for event in late if isinstance(event, Chunk)] == ["ab", "c"]
    assert sum(call.streamed for call in fake.calls) == 1
