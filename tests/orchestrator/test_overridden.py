"""A subclass's own `process_responses` is what `stream_responses` runs, on trio and on asyncio."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from typing import Any

import pytest
import trio
from trio.lowlevel import in_trio_run

from helpers.event_loops import on_every_loop
from helpers.run_events import assert_well_formed, read_all
from helpers.stray_cancellations import raise_stray_cancellation
from ultra import (
    BadCall,
    MultiLLMOrchestrator,
    OrchestrationResult,
    OrchestratorClosed,
    QuorumNotReached,
)
from ultra.errors import StrayCancelled, UsageError
from ultra.messages.events import (
    Chunk,
    ModelResponded,
    RunCompleted,
    RunFailed,
    StageCompleted,
    StageStarted,
)
from ultra.testing import FakeAnswer, FakeModel


def numbered(name: str, *, pause: float = 0) -> FakeModel:
    """A model that says its name, the number of the call, and after a pause of so many seconds the prompt."""
    numbers = count(1)
    return FakeModel(
        lambda request: FakeAnswer(f"{name} {next(numbers)}: ", request.prompt),
        name=name,
        piece_seconds=pause,
    )


def using(kind: type[MultiLLMOrchestrator], *models: FakeModel, **settings: Any) -> MultiLLMOrchestrator:
    orchestrator = kind(max_retries=0, **settings)
    for model in models or (numbered("a"), numbered("b")):
        orchestrator.register_model(model.name, model)
    return orchestrator


class Shouting(MultiLLMOrchestrator):
    """The guide's: a method with the guide's three arguments."""

    async def process_responses(  # type: ignore[override]
        self, prompt: str, stages: Sequence[str] | None = None, models: Sequence[str] | None = None
    ) -> OrchestrationResult:
        result = await super().process_responses(prompt.upper(), stages or ["initial"], models)
        result.notices.append("shouted")
        return result


class Voting(MultiLLMOrchestrator):
    """Three runs at once, or one after the other; the answer that most of them gave."""

    at_once = True

    async def process_responses(self, prompt: Any, *_: Any, **options: Any) -> OrchestrationResult:
        results: list[OrchestrationResult] = []

        async def one() -> None:
            results.append(await super(Voting, self).process_responses(prompt, ["initial"], use_cache=False))

        if not self.at_once:
            for _number in range(3):
                await one()
        elif in_trio_run():
            async with trio.open_nursery() as nursery:
                for _number in range(3):
                    nursery.start_soon(one)
        else:
            await asyncio.gather(*[one() for _number in range(3)])
        votes = Counter(result.initial_responses["a"].content[-1] for result in results)
        winner = votes.most_common(1)[0][0]
        return next(result for result in results if result.initial_responses["a"].content[-1] == winner)


def texts(events: Sequence[Any]) -> dict[tuple[str, int, str], str]:
    """What a reader has of each answer at the end, by stage, round and model."""
    found: dict[tuple[str, int, str], str] = {}
    for event in events:
        if isinstance(event, Chunk):
            key = event.stage, event.round, event.model_name
            found[key] = event.text if event.restart else found.get(key, "") + event.text
    return found


# --- what it runs and tells ---------------------------------------------------------------------------


@on_every_loop
async def test_the_overridden_method_is_what_is_streamed() -> None:
    async with using(Shouting) as orchestrator, orchestrator.stream_responses("Why?") as run:
        events = await read_all(run)
        result = await run.result()
    assert_well_formed(events)
    assert texts(events) == {("initial", 0, name): f"{name} 1: WHY?" for name in "ab"}
    assert result.initial_responses["a"].content == "a 1: WHY?"
    assert result.notices == ["shouted"]
    assert isinstance(events[-1], RunCompleted)
    assert events[-1].result is result
    assert [type(event) for event in events if isinstance(event, (StageStarted, StageCompleted))] == [
        StageStarted,
        StageCompleted,
    ]


@on_every_loop
async def test_plain_and_streamed_runs_of_it_are_the_same() -> None:
    plain = await using(Shouting).process_responses("Why?", models=["b"])
    async with using(Shouting).stream_responses("Why?", models=["b"]) as run:
        streamed = await run.result()
    for result in (plain, streamed):
        assert {name: str(response) for name, response in result.initial_responses.items()} == {
            "b": "b 1: WHY?"
        }
        assert (result.prompt, result.notices) == ("WHY?", ["shouted"])


@on_every_loop
async def test_the_arguments_of_the_call_reach_the_method() -> None:
    given: list[Any] = []

    class Curious(MultiLLMOrchestrator):
        async def process_responses(self, prompt: Any, *args: Any, **options: Any) -> OrchestrationResult:
            given.append((prompt, args, options))
            return await super().process_responses(prompt, *args, **options)

    async with using(Curious).stream_responses(
        "Q", ["initial"], ["a"], timeout=5, use_cache=False, strategy="synthesize"
    ) as run:
        await run.result()
    assert given == [
        (
            "Q",
            (),
            {
                "stages": ["initial"],
                "models": ["a"],
                "strategy": "synthesize",
                "timeout": 5,
                "use_cache": False,
            },
        )
    ]


@on_every_loop
async def test_runs_of_different_stages_are_told_one_after_the_other() -> None:
    class TwoRuns(MultiLLMOrchestrator):
        async def process_responses(self, prompt: Any, *_: Any, **options: Any) -> OrchestrationResult:
            first = await super().process_responses(prompt, ["initial"])
            longest = max(first.initial_responses.values(), key=lambda response: len(str(response)))
            return await super().process_responses(f"Check: {longest}", ["initial", "meta"], ["a"])

    async with using(TwoRuns, numbered("a"), numbered("bb")).stream_responses("Q") as run:
        events = await read_all(run)
        result = await run.result()
    assert_well_formed(events)
    assert [(e.stage, e.round, e.models) for e in events if isinstance(e, StageStarted)] == [
        ("initial", 0, ("a", "bb")),
        ("initial", 1, ("a",)),
        ("meta", 0, ("a",)),
    ]
    assert texts(events)["initial", 0, "bb"] == "bb 1: Q"
    assert texts(events)["initial", 1, "a"] == "a 2: Check: bb 1: Q"
    assert list(result.stages) == ["initial", "meta"]


@pytest.mark.parametrize("at_once", [True, False])
@on_every_loop
async def test_runs_of_equal_stages_are_told_apart_at_once_or_in_turn(*, at_once: bool) -> None:
    class Votes(Voting):
        pass

    Votes.at_once = at_once
    async with using(Votes, numbered("a", pause=0.01)).stream_responses("Q") as run:
        events = await read_all(run)
        result = await run.result()
    assert_well_formed(events)
    answers = {(event.round, event.response.content) for event in events if isinstance(event, ModelResponded)}
    assert answers == {(round_, text) for (_, round_, _), text in texts(events).items()}
    assert sorted(text for _, text in answers) == ["a 1: Q", "a 2: Q", "a 3: Q"]
    assert sorted(event.round for event in events if isinstance(event, StageCompleted)) == [0, 1, 2]
    assert isinstance(events[-1], RunCompleted)
    assert events[-1].result is result


@on_every_loop
async def test_the_method_may_stream_runs_itself_and_their_events_are_told_too() -> None:
    heard: list[str] = []

    class Listening(MultiLLMOrchestrator):
        async def process_responses(self, prompt: Any, *_: Any, **options: Any) -> OrchestrationResult:
            async with super().stream_responses(f"{prompt}!", ["initial"]) as run:
                events = await read_all(run)
                assert_well_formed(events)
                heard.extend(texts(events).values())
                return await run.result()

    plain = await using(Listening, numbered("a")).process_responses("Q")
    async with using(Listening, numbered("a")).stream_responses("Q") as run:
        events = await read_all(run)
        streamed = await run.result()
    assert_well_formed(events)
    assert heard == ["a 1: Q!", "a 1: Q!"]
    assert texts(events) == {("initial", 0, "a"): "a 1: Q!"}
    assert str(plain.initial_responses["a"]) == str(streamed.initial_responses["a"]) == "a 1: Q!"


@on_every_loop
async def test_a_subclass_of_a_subclass_adds_to_it() -> None:
    class Twice(Shouting):
        async def process_responses(self, prompt: Any, *args: Any) -> OrchestrationResult:  # type: ignore[override]
            return await super().process_responses(f"{prompt} {prompt}", *args)

    async with using(Twice, numbered("a")).stream_responses("why?") as run:
        assert str((await run.result()).initial_responses["a"]) == "a 1: WHY? WHY?"


@on_every_loop
async def test_runs_beside_it_are_not_told() -> None:
    slow = numbered("a", pause=0.02)
    async with (
        using(Shouting, slow) as orchestrator,
        orchestrator.stream_responses("one") as first,
        orchestrator.stream_responses("two") as second,
    ):
        await orchestrator.process_responses("three")
        events = [await read_all(run) for run in (first, second)]
    for each, word in zip(events, ("ONE", "TWO"), strict=True):
        assert_well_formed(each)
        (text,) = texts(each).values()
        assert text.endswith(f": {word}")


# --- how it ends --------------------------------------------------------------------------------------


@on_every_loop
async def test_what_the_method_raises_is_the_last_event_and_the_result() -> None:
    class Broken(MultiLLMOrchestrator):
        async def process_responses(self, prompt: Any, *_: Any, **options: Any) -> OrchestrationResult:
            await super().process_responses(prompt, ["initial"])
            raise ZeroDivisionError("mine")

    async with using(Broken).stream_responses("Q") as run:
        events = await read_all(run)
        with pytest.raises(ZeroDivisionError, match="mine"):
            await run.result()
    assert_well_formed(events)
    assert isinstance(events[-1], RunFailed)
    assert (events[-1].error, events[-1].message) == ("ZeroDivisionError", "mine")
    assert texts(events)["initial", 0, "a"] == "a 1: Q"


class WaitingForTheCancelled(MultiLLMOrchestrator):
    """A method that lets the cancellation of another task out."""

    async def process_responses(self, prompt: Any, *_: Any, **options: Any) -> OrchestrationResult:
        if not in_trio_run():
            other = asyncio.create_task(asyncio.sleep(60))
            other.cancel()
            await other
        await raise_stray_cancellation()


@on_every_loop
async def test_a_cancellation_that_is_not_its_own_fails_it_and_its_readers_hear_of_that() -> None:
    async with using(WaitingForTheCancelled).stream_responses("hello") as run:
        events = await read_all(run)
        assert [type(event) for event in events] == [RunFailed]
        with pytest.raises(StrayCancelled) as raised:
            await run.result()
    assert type(raised.value.__cause__).__name__ in {"Cancelled", "CancelledError"}


@on_every_loop
async def test_a_run_of_it_that_fails_fails_it_once() -> None:
    async with using(Shouting, FakeModel(ConnectionError("away"), name="a")).stream_responses("Q") as run:
        events = await read_all(run)
        with pytest.raises(QuorumNotReached, match="away"):
            await run.result()
    assert_well_formed(events)
    assert isinstance(events[-1], RunFailed)
    assert events[-1].error == "QuorumNotReached"


@on_every_loop
async def test_a_run_of_it_that_fails_may_be_made_up_for() -> None:
    class Careful(MultiLLMOrchestrator):
        async def process_responses(self, prompt: Any, *_: Any, **options: Any) -> OrchestrationResult:
            with suppress(QuorumNotReached):
                return await super().process_responses(prompt, ["initial"], ["broken"])
            return await super().process_responses(prompt, ["initial"], ["a"])

    models = numbered("a"), FakeModel(ConnectionError("away"), name="broken")
    async with using(Careful, *models).stream_responses("Q") as run:
        events = await read_all(run)
        result = await run.result()
    assert_well_formed(events)
    assert isinstance(events[-1], RunCompleted)
    assert list(result.initial_responses) == ["a"]


@on_every_loop
async def test_what_is_no_result_is_refused_with_a_message() -> None:
    class Short(MultiLLMOrchestrator):
        async def process_responses(self, prompt: Any, *_: Any, **options: Any) -> Any:
            return str((await super().process_responses(prompt)).final_synthesis)

    orchestrator = using(Short, numbered("a"))
    given: object = await orchestrator.process_responses("Q")
    assert isinstance(given, str)
    async with orchestrator.stream_responses("Q") as run:
        events = await read_all(run)
        with pytest.raises(UsageError, match=r"Short\.process_responses gave str; to be streamed, it must"):
            await run.result()
    assert_well_formed(events)
    assert isinstance(events[-1], RunFailed)


@on_every_loop
async def test_arguments_that_it_does_not_take_are_refused_at_once() -> None:
    model = numbered("a")
    orchestrator = using(Shouting, model)
    calls: list[dict[str, Any]] = [{"timeout": 3}, {"strategy": "vote"}]
    for arguments in calls:
        with pytest.raises(
            BadCall, match=r"Shouting\.process_responses overrides process_responses and cannot be streamed"
        ) as caught:
            orchestrator.stream_responses("Q", **arguments)
        assert f"unexpected keyword argument '{next(iter(arguments))}'" in str(caught.value)
    assert model.calls == []


@on_every_loop
async def test_a_closed_orchestrator_refuses_it() -> None:
    orchestrator = using(Shouting)
    await orchestrator.aclose()
    with pytest.raises(OrchestratorClosed):
        orchestrator.stream_responses("Q")


@on_every_loop
async def test_leaving_the_block_early_cancels_the_method_and_its_calls() -> None:
    cancelled: list[str] = []

    class Patient(MultiLLMOrchestrator):
        async def process_responses(self, prompt: Any, *_: Any, **options: Any) -> OrchestrationResult:
            try:
                return await super().process_responses(prompt)
            except (trio.Cancelled, asyncio.CancelledError):
                cancelled.append("method")
                raise

    slow = numbered("a", pause=1000)
    async with using(Patient, slow) as orchestrator:
        async with orchestrator.stream_responses("Q") as run:
            async for event in run:
                if isinstance(event, Chunk):
                    break
        assert cancelled == ["method"]
        with pytest.raises(BadCall, match="block was left"):
            await run.result()
        with pytest.raises(BadCall, match="block was left"):
            await anext(run)
    assert slow.cancelled == 1


@on_every_loop
async def test_an_exception_in_the_block_leaves_as_itself_and_cancels_the_method() -> None:
    slow = numbered("a", pause=1000)
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the block is what is tested
        async with using(Shouting, slow).stream_responses("Q") as run:
            await anext(run)
            await anext(run)
            await anext(run)
            raise ZeroDivisionError
    assert slow.cancelled == 1


@on_every_loop
async def test_cancelling_the_task_that_streams_ends_everything() -> None:
    slow = numbered("a", pause=1000)

    async def stream() -> None:
        async with using(Shouting, slow).stream_responses("Q") as run:
            await run.result()

    if in_trio_run():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream)
            await slow.asked.wait()
            nursery.cancel_scope.cancel()
    else:
        task = asyncio.create_task(stream())
        await slow.asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert slow.cancelled == 1


def test_a_task_of_asyncio_that_is_cancelled_again_while_it_leaves_waits_all_the_same() -> None:
    ended: list[str] = []

    class Slow(MultiLLMOrchestrator):
        async def process_responses(self, prompt: Any, *_: Any, **options: Any) -> OrchestrationResult:
            try:
                await asyncio.sleep(1000)
            finally:
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(0.02)
                ended.append("method")
            raise AssertionError

    async def stream() -> None:
        async with using(Slow).stream_responses("Q") as run:
            await run.result()

    async def main() -> None:
        task = asyncio.create_task(stream())
        await asyncio.sleep(0.01)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended == ["method"]
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


@on_every_loop
async def test_it_is_entered_once_and_before_it_is_used() -> None:
    run = using(Shouting).stream_responses("Q")
    with pytest.raises(BadCall, match="async with"):
        await run.result()
    async with run:
        with pytest.raises(BadCall, match="only once"):
            await run.__aenter__()
        await run.result()


class Watching(MultiLLMOrchestrator):
    """Reads its own run, with chunks or without, and keeps what it was told."""

    inner_chunks = True
    told: list[Any]

    async def process_responses(self, prompt: Any, *_: Any, **options: Any) -> OrchestrationResult:
        async with self.stream_responses(prompt, ["initial"], chunks=self.inner_chunks) as run:
            self.told = [event async for event in run]
            return await run.result()


@pytest.mark.parametrize("outer", [False, True])
@pytest.mark.parametrize("inner", [False, True])
@on_every_loop
async def test_each_reader_of_a_nested_run_gets_chunks_if_it_wants_them(*, outer: bool, inner: bool) -> None:
    model = FakeModel(FakeAnswer("to", "ken"), name="a")
    orchestrator = using(Watching, model)
    assert isinstance(orchestrator, Watching)
    orchestrator.inner_chunks = inner
    async with orchestrator, orchestrator.stream_responses("Q", chunks=outer) as run:
        events = await read_all(run)

    assert [event.seq for event in events] == list(range(len(events)))
    assert any(isinstance(event, Chunk) for event in events) == outer
    assert any(isinstance(event, Chunk) for event in orchestrator.told) == inner
    assert [call.streamed for call in model.calls] == [outer or inner]
