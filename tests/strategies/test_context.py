"""What a run does for its strategy: steps, samples, grace, budget, time, events; and how it ends."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from msgspec.structs import replace
from trio.testing import MockClock

from helpers.asking_strategies import By, ask_everybody
from helpers.coordinator_runs import Recorder, by_weight, failing, run, three
from helpers.model_actors import register
from ultra import (
    AllAttemptsFailed,
    BadCall,
    DeadlineExceeded,
    MultiLLMOrchestrator,
    Price,
    QuorumNotReached,
    UsageError,
)
from ultra.errors import ModelError, StrategyFailed
from ultra.messages.events import ModelStarted, StageCompleted, StageStarted
from ultra.messages.request import ModelRequest
from ultra.messages.results import Usage
from ultra.strategies import Answer, Model, RunContext
from ultra.testing import FakeModel


def told(sink: Recorder) -> list[str]:
    return [type(event).__name__ for event in sink.events]


# --- what it knows ------------------------------------------------------------------------------------


async def test_it_has_the_question_the_models_by_weight_and_the_settings() -> None:
    async def look(context: RunContext) -> Answer:
        assert context.request == ModelRequest.of("Q")
        assert context.models == (Model("a", 3.0), Model("b", 2.0), Model("c", 1.0))
        assert (context.options.quorum, context.options.samples) == (2, 3)
        assert (context.steps, context.failures, context.judge) == ([], [], None)
        assert (context.time_left(), context.spend_left) == (None, None)
        return Answer(None)

    result = await run(three(), strategy=By(look), quorum=2, samples=3)
    assert (result.strategy, result.final_synthesis, result.steps) == ("By", None, [])
    assert result.status == "success"


async def test_steps_and_failures_are_those_that_there_are_so_far() -> None:
    async def look(context: RunContext) -> Answer:
        with context.step("first") as step:
            await context.ask_all(context.request)
            assert context.steps == []
            assert [failure.model_name for failure in step.failures] == ["b"]
        with context.step("second") as step:
            await context.ask_all(context.request)
            assert list(step.failures) == list(context.failures)[1:]
        assert [(each.name, list(each.by_model)) for each in context.steps] == [
            ("first", ["a", "c"]),
            ("second", ["a", "c"]),
        ]
        return Answer(None)

    result = await run(three(b=failing("b")), strategy=By(look))
    assert [failure.stage for failure in result.failures] == ["first", "second"]


# --- steps --------------------------------------------------------------------------------------------


async def test_a_step_inside_another_is_refused() -> None:
    async def nest(context: RunContext) -> Answer:
        with context.step("outer"), context.step("inner"):
            pass
        return Answer(None)

    with pytest.raises(UsageError, match="step 'inner' opens inside step 'outer'; steps follow one another"):
        await run(three(), strategy=By(nest))


@pytest.mark.parametrize(
    "ask",
    [
        lambda context: context.ask_all(context.request),
        lambda context: context.ask_first(context.request),
        lambda context: context.ask(context.models[0], context.request),
        lambda context: context.score([]),
    ],
    ids=["ask_all", "ask_first", "ask", "score"],
)
async def test_to_ask_outside_a_step_is_refused(ask: Any) -> None:
    fake = FakeModel(name="a")
    with pytest.raises(UsageError, match=r"within a step: use 'with context\.step\(name\):' around it"):
        await run([register(fake)], strategy=By(ask))
    assert len(fake.calls) == 0


async def test_rounds_of_one_step_are_told_apart() -> None:
    async def twice(context: RunContext) -> Answer:
        for number in range(2):
            with context.step("debate", number):
                await context.ask_all(ModelRequest.of(f"round {number}"))
        return Answer(context.steps[-1].responses[0])

    sink = Recorder()
    result = await run(three(), strategy=By(twice), sink=sink)
    assert [(step.name, step.round) for step in result.steps] == [("debate", 0), ("debate", 1)]
    assert {event.round for event in sink.of("ModelResponded")} == {0, 1}
    assert result["debate_responses"]["a"].content == "a: round 1"


async def test_a_step_that_asks_nobody_is_not_told_and_stands_in_the_result() -> None:
    async def think(context: RunContext) -> Answer:
        with context.step("thinking"):
            context.note("nothing to ask")
        return Answer(None)

    sink = Recorder()
    result = await run(three(), strategy=By(think), sink=sink)
    assert sink.events == []
    assert [(step.name, step.responses) for step in result.steps] == [("thinking", ())]
    assert (result.notices, result.status) == (["nothing to ask"], "success")


async def test_a_step_that_fails_is_over_too_so_that_a_strategy_can_go_on() -> None:
    async def retreat(context: RunContext) -> Answer:
        try:
            with context.step("bold"):
                await context.ask_all(context.request, models=context.models[:1])
        except QuorumNotReached:
            context.degrade("the bold one failed")
        with context.step("careful"):
            return Answer(await context.ask_first(context.request, models=context.models[1:]))

    sink = Recorder()
    result = await run(three(a=failing("a")), strategy=By(retreat), sink=sink)
    assert [event.stage for event in sink.of("StageCompleted")] == ["bold", "careful"]
    assert (str(result.final_synthesis), result.status) == ("b: Q", "degraded")
    assert result.notices == ["the bold one failed"]


async def test_several_asks_in_one_step_are_one_step() -> None:
    async def one_by_one(context: RunContext) -> Answer:
        with context.step("initial"):
            for model in reversed(context.models):
                await context.ask(model, ModelRequest.of(f"for {model.name}"))
        return Answer(context.steps[0].responses[0], "selected")

    sink = Recorder()
    result = await run(three(), strategy=By(one_by_one), sink=sink)
    assert len(sink.of("StageStarted")) == len(sink.of("StageCompleted")) == 1
    assert [response.content for response in result.steps[0].responses] == [f"{n}: for {n}" for n in "abc"]
    assert str(result.final_synthesis) == "a: for a"


# --- asking -------------------------------------------------------------------------------------------


async def test_some_of_the_models_can_be_asked_and_each_something_else() -> None:
    async def some(context: RunContext) -> Answer:
        with context.step("initial"):
            responses = await context.ask_all(
                lambda model: ModelRequest.of(f"Q for {model.name}"), models=context.models[1:]
            )
        return Answer(responses[0])

    result = await run(three(), strategy=By(some))
    assert [response.content for response in result.steps[0].responses] == ["b: Q for b", "c: Q for c"]


async def test_a_model_that_is_not_of_the_run_is_refused() -> None:
    async def stranger(context: RunContext) -> Answer:
        with context.step("initial"):
            await context.ask(Model("d"), context.request)
        return Answer(None)

    with pytest.raises(UsageError, match="model 'd' is not one of those that this run may ask: a, b, c"):
        await run(three(), strategy=By(stranger))


async def test_asking_one_model_raises_what_went_wrong_and_counts_it() -> None:
    async def ask(context: RunContext) -> Answer:
        with context.step("initial"):
            with pytest.raises(AllAttemptsFailed, match="a is down"):
                await context.ask(context.models[0], context.request)
            return Answer(await context.ask(context.models[1], context.request))

    result = await run(three(a=failing("a")), strategy=By(ask))
    assert str(result.final_synthesis) == "b: Q"
    assert [(failure.model_name, failure.attempts) for failure in result.failures] == [("a", 3)]


async def test_one_model_can_be_given_less_time_than_the_run_has(autojump_clock: MockClock) -> None:
    async def ask(context: RunContext) -> Answer:
        with context.step("initial"):
            with pytest.raises(DeadlineExceeded, match="'a' did not answer in time"):
                await context.ask(context.models[0], context.request, within=2)
            assert context.time_left() == pytest.approx(8)
            assert await context.ask_first(context.request, models=context.models[:1], within=3) is None
            assert context.time_left() == pytest.approx(5)
            with pytest.raises(QuorumNotReached):
                await context.ask_first(context.request, models=context.models[:1], within=1, required=True)
            return Answer((await context.ask_all(context.request, within=1))[0])

    slow = FakeModel(name="a", seconds=1000)
    result = await run(three(a=slow), strategy=By(ask), timeout=10)
    assert str(result.final_synthesis) == "b: Q"
    assert result.response_time == pytest.approx(7)
    assert slow.cancelled == 4


async def test_a_quorum_is_of_those_who_are_asked(autojump_clock: MockClock) -> None:
    async def two(context: RunContext) -> Answer:
        with context.step("initial"):
            responses = await context.ask_all(context.request, models=context.models[:2])
        return Answer(responses[0])

    assert (await run(three(), strategy=By(two), quorum=3)).status == "success"
    with pytest.raises(QuorumNotReached, match="got 1 of the 2"):
        await run(three(a=failing("a")), strategy=By(two), quorum=3)


async def test_answers_that_are_not_required_may_be_missing() -> None:
    async def optional(context: RunContext) -> Answer:
        with context.step("initial"):
            assert await context.ask_all(context.request, required=False) == []
        return Answer(None)

    down = {name: failing(name) for name in "abc"}
    assert (await run(three(**down), strategy=By(optional))).status == "degraded"
    with pytest.raises(QuorumNotReached):
        await run(three(**down), strategy=By(optional), quorum="all")


# --- budget and time ----------------------------------------------------------------------------------


def dear(name: str, weight: float = 1.0) -> Any:
    """A model that costs a dollar a call."""
    model = register(FakeModel(name=name, usage=Usage(input=0, output=1)), name, weight)
    model.price = Price(input=0, output=1e6)
    return model


async def test_once_the_budget_is_spent_the_steps_ask_nobody_and_say_so() -> None:
    async def spend(context: RunContext) -> Answer:
        assert context.spend_left == pytest.approx(1.5)
        with context.step("initial") as step:
            responses = await context.ask_all(context.request)
            assert not step.left_out
        assert context.spend_left == pytest.approx(-0.5)
        with context.step("more") as step:
            assert step.left_out
            assert await context.ask_all(context.request) == []
            assert await context.ask_first(context.request, required=True) is None
            with pytest.raises(DeadlineExceeded, match="step 'more' was left out"):
                await context.ask(context.models[0], context.request)
        return Answer(responses[0], "selected")

    sink = Recorder()
    result = await run([dear("a", 2.0), dear("b")], strategy=By(spend), max_cost=1.5, sink=sink)
    assert result.status == "degraded"
    assert result.cost == pytest.approx(2)
    assert result.notices == ["stage 'more' was left out: the run has cost 2 dollars, and may cost 1.5"]
    assert [event.stage for event in sink.of("StageStarted")] == ["initial"]
    assert [step.name for step in result.steps] == ["initial", "more"]


async def test_it_knows_how_much_time_is_left_and_what_is_kept_for_later(autojump_clock: MockClock) -> None:
    async def wait(context: RunContext) -> Answer:
        assert context.time_left() == pytest.approx(20)
        assert context.time_left(0.25) == pytest.approx(15)
        await trio.sleep(16)
        assert context.time_left() == pytest.approx(4)
        assert context.time_left(0.25) == 0
        return Answer(None)

    assert (await run(three(), strategy=By(wait), timeout=20)).response_time == pytest.approx(16)


async def test_a_strategy_that_does_not_heed_its_time_is_given_up(autojump_clock: MockClock) -> None:
    async def sleep(_context: RunContext) -> Answer:
        await trio.sleep(1000)
        return Answer(None)

    async with MultiLLMOrchestrator(strategy=By(sleep)) as orchestrator:
        orchestrator.register_model("a", FakeModel(name="a"))
        began = trio.current_time()
        with pytest.raises(DeadlineExceeded, match="The run has 5 s in all"):
            await orchestrator.process_responses("Q", timeout=5)
        assert trio.current_time() - began == pytest.approx(6)


# --- scores, notes, events, functions of the user's ---------------------------------------------------


async def test_scores_stand_in_the_answers_and_in_the_step() -> None:
    async def score(context: RunContext) -> Answer:
        with context.step("initial"):
            responses = await context.score(await context.ask_all(context.request))
            assert [response.quality for response in responses] == [0.1, 0.9, None]
        assert [response.quality for response in context.steps[0].responses] == [0.1, 0.9, None]
        assert context.best(responses).model_name == "b"
        assert context.best(context.steps[0].responses[2:]).model_name == "c"
        return Answer(context.best(responses), "selected")

    sink = Recorder()
    result = await run(
        three(), strategy=By(score), scorer=lambda _question, _answers: {"a": 0.1, "b": 0.9}, sink=sink
    )
    assert str(result.final_synthesis) == "b: Q"
    assert [event.quality for event in sink.of("StageCompleted")] == [{"a": 0.1, "b": 0.9}]


async def test_samples_are_scored_apart() -> None:
    given: list[dict[str, str]] = []

    def scorer(_question: str, answers: Any) -> dict[str, float]:
        given.append(dict(answers))
        return {"a": 0.1, "a#1": 0.8}

    async def score(context: RunContext) -> Answer:
        with context.step("initial"):
            responses = await context.score(await context.ask_all(context.request, samples=2))
        return Answer(context.best(responses), "selected")

    result = await run([register(FakeModel(name="a"), "a")], strategy=By(score), scorer=scorer)
    assert list(given[0]) == ["a", "a#1"]
    assert [response.quality for response in result.steps[0].responses] == [0.1, 0.8]
    assert result.final_synthesis is not None
    assert result.final_synthesis.sample == 1


async def test_a_strategy_can_tell_an_event_of_its_own_step() -> None:
    event = StageStarted(stage="dream", models=(), asks="all")

    async def tell(context: RunContext) -> Answer:
        context.emit(event)
        return Answer(None)

    sink = Recorder()
    await run(three(), strategy=By(tell), sink=sink)
    assert sink.events == [event]


async def test_answers_are_read_fenced_and_a_tiny_model_fails_alone() -> None:
    async def read(context: RunContext) -> Answer:
        with context.step("initial"):
            responses = await context.ask_all(context.request, models=context.models[1:])
        with context.step("reading"):
            readers = await context.ask_all(context.compose("meta", responses))
        return Answer(readers[0])

    tiny, b = FakeModel(name="a", context_window=20), FakeModel(name="b")
    result = await run(by_weight([(tiny, 3.0), (b, 2.0), (FakeModel(name="c"), 1.0)]), strategy=By(read))
    assert list(result["reading_responses"]) == ["b", "c"]
    assert [(failure.model_name, failure.kind) for failure in result.failures] == [("a", "bad_request")]
    assert "Candidate A: <" in b.prompts[1]


# --- how it ends --------------------------------------------------------------------------------------


async def test_a_strategy_that_raises_fails_the_run_and_is_named() -> None:
    async def broken(_context: RunContext) -> Answer:
        raise ZeroDivisionError("mine")

    with pytest.raises(StrategyFailed, match=r"By.*ZeroDivisionError: mine") as caught:
        await run(three(), strategy=By(broken))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


async def test_a_strategy_that_raises_harms_neither_the_coordinator_nor_other_runs() -> None:
    async def broken(_context: RunContext) -> Answer:
        raise ZeroDivisionError("mine")

    async with MultiLLMOrchestrator(cache_enabled=False) as orchestrator:
        gated = FakeModel(name="a", gated=True)
        orchestrator.register_model("a", gated)
        async with orchestrator.stream_responses("Q", stages=["initial"]) as other:
            await gated.asked.wait()
            with pytest.raises(StrategyFailed):
                await orchestrator.process_responses("Q", strategy=By(broken))
            gated.gate.set()
            assert (await other.result()).status == "success"
        assert orchestrator.tree().find("/coordinator").restarts == 0


@pytest.mark.parametrize("nonsense", [None, 7, "text", {"response": None}])
async def test_a_strategy_that_returns_something_else_fails_the_run(nonsense: Any) -> None:
    async def answer(_context: RunContext) -> Any:
        return nonsense

    with pytest.raises(StrategyFailed, match=r"it must give an ultra\.strategies\.Answer"):
        await run(three(), strategy=By(answer))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"response": "text"}, "the response of the answer is 'text'; it must be a ModelResponse, or None"),
        ({"response": None, "source": "guess"}, "the source of the answer is 'guess'; .*primary, fallback"),
        ({"response": None, "confidence": 1.5}, "the confidence is 1.5; it must be a number from 0 to 1"),
        ({"response": None, "confidence": float("nan")}, "the confidence is nan"),
    ],
)
async def test_an_answer_that_makes_no_sense_fails_the_run_and_says_why(
    fields: dict[str, Any], message: str
) -> None:
    async def answer(_context: RunContext) -> Answer:
        return Answer(**fields)

    with pytest.raises(StrategyFailed, match=message):
        await run(three(), strategy=By(answer))


async def test_a_cancelled_run_cancels_its_strategy_and_its_calls(autojump_clock: MockClock) -> None:
    slow = FakeModel(name="a", seconds=1000)
    cancelled = []

    async def wait(context: RunContext) -> Answer:
        try:
            return await ask_everybody(context)
        except trio.Cancelled:
            cancelled.append(1)
            raise

    async with MultiLLMOrchestrator(strategy=By(wait)) as orchestrator:
        orchestrator.register_model("a", slow)
        with trio.move_on_after(1):
            await orchestrator.process_responses("Q")
        await trio.testing.wait_all_tasks_blocked()
        assert (cancelled, slow.cancelled) == ([1], 1)


async def test_plain_and_streamed_runs_of_a_strategy_are_the_same() -> None:
    async def two_steps(context: RunContext) -> Answer:
        with context.step("draft"):
            drafts = await context.ask_all(context.request)
        with context.step("final"):
            request = replace(context.request, messages=ModelRequest.of(f"{len(drafts)} drafts").messages)
            return Answer(await context.ask_first(request), "primary", 0.5)

    orchestrator = MultiLLMOrchestrator(strategy=By(two_steps))
    orchestrator.register_model("a", FakeModel(name="a"))
    orchestrator.register_model("b", FakeModel(name="b", failures=[ModelError("no", kind="bad_request")] * 2))
    plain = await orchestrator.process_responses("Q")
    async with orchestrator.stream_responses("Q") as stream:
        events = [event async for event in stream]
        streamed = await stream.result()
    for result in (plain, streamed):
        assert [(step.name, list(step.by_model)) for step in result.steps] == [
            ("draft", ["a"]),
            ("final", ["a"]),
        ]
        assert (str(result.final_synthesis), result.confidence) == ("a: 1 drafts", 0.5)
        assert [failure.model_name for failure in result.failures] == ["b"]
    assert [event.stage for event in events if isinstance(event, StageCompleted)] == ["draft", "final"]
    assert sum(isinstance(event, ModelStarted) for event in events) == 3


async def test_a_strategy_without_the_method_is_refused_before_any_model_is_called() -> None:
    orchestrator = MultiLLMOrchestrator()
    fake = FakeModel(name="a")
    orchestrator.register_model("a", fake)
    with pytest.raises(BadCall, match=r"an object with 'async def run\(self, context\)'"):
        await orchestrator.process_responses("Q", strategy=object())  # type: ignore[arg-type]
    assert len(fake.calls) == 0
