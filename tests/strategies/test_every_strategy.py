"""What holds of every strategy: order, unanimity, one usable answer; and of each under faults."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from helpers.panel_members import TASKS, grading, member, preferring, task_of
from ultra import MemoryCache, MultiLLMOrchestrator, OrchestrationResult, Price, QuorumNotReached, Tool, Usage
from ultra.errors import ModelError
from ultra.strategies import (
    BestOf,
    Cascade,
    Debate,
    Layers,
    Rank,
    Route,
    SelfConsistency,
    Synthesize,
    Vote,
    strategy_names,
)
from ultra.strategies.explained import EXPLAINED, explained
from ultra.testing import FakeAnswer, FakeModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ultra import ModelRequest

STRATEGIES: dict[str, Any] = {
    "synthesize": Synthesize(keep_unanimous=True, analysts="none"),
    "vote": Vote(),
    "vote at once": Vote(at_once=True),
    "vote by plurality": Vote(rule="plurality"),
    "self_consistency": SelfConsistency(samples=3),
    "best_of": BestOf(),
    "best_of by a judge": BestOf(judge="a"),
    "rank": Rank(),
    "rank and merge": Rank(top=2),
    "cascade": Cascade(),
    "layers": Layers(),
    "debate": Debate(),
    "debate with a judge": Debate(end="judge"),
    "route": Route(choose=lambda _: ("a", "b", "c")),
    "route by a model": Route(chooser="a", most=2),
}
EVERY = pytest.mark.parametrize("name", STRATEGIES)


def test_every_strategy_of_the_catalog_is_tried_here() -> None:
    tried = {name.split()[0] for name in STRATEGIES}
    assert tried == {*strategy_names()} - {"fields"}  # it needs structured answers, and has its own tests


USUAL = {"rank": preferring("4"), "choose": "b and c", "judge": grading(answer=5)}


def panel_of(answers: Sequence[Any], **tasks: Any) -> list[FakeModel]:
    return [
        member(
            name,
            answer,
            **{"rank": preferring("4"), "choose": "b and c", "judge": grading(answer=5), **tasks},
        )
        for name, answer in zip("abcdef", answers, strict=False)
    ]


def orchestrator_of(fakes: Sequence[FakeModel], weights: Sequence[float] = ()) -> MultiLLMOrchestrator:
    cache = MemoryCache()
    cache._secret = b"s" * 32  # by which labels and order are drawn: the same in every run
    made = MultiLLMOrchestrator(max_retries=0, cache=cache)
    for fake, weight in zip(fakes, weights or (1.0,) * len(fakes), strict=False):
        made.register_model(fake.name, fake, weight, price=Price(input=1.0, output=1.0))
    return made


async def asked(
    name: str, fakes: Sequence[FakeModel], weights: Sequence[float] = (), **run: Any
) -> OrchestrationResult:
    made = orchestrator_of(fakes, weights)
    return await made.process_responses("What is 2 + 2?", strategy=STRATEGIES[name], use_cache=False, **run)


def check_truth(result: OrchestrationResult, fakes: Sequence[FakeModel]) -> None:
    """The result tells all that happened: each answer or failure of a call, and what it cost."""
    answers = [response for step in result.steps for response in step.responses]
    calls = [call for fake in fakes for call in fake.calls]
    needless = sum(call.outcome == "cancelled" for call in calls)
    assert len(calls) - needless <= len(answers) + len(result.failures) <= len(calls) + 1
    assert result.final_synthesis is not None
    assert str(result.final_synthesis)
    assert (result.status == "degraded") >= bool(result.failures)
    told = sum(r.cost or 0 for r in answers) + sum(f.cost or 0 for f in result.failures)
    assert result.cost == pytest.approx(told + (result.other_cost or 0.0))
    for fake in fakes:
        metrics = result.metrics[fake.name]
        assert metrics.attempts == len(fake.calls)
        assert metrics.requests == metrics.successes + metrics.failures + metrics.cancelled
        assert fake.running == 0
    seen = [(step.name, step.round) for step in result.steps]
    assert len(set(seen)) == len(seen)


# --- properties ------------------------------------------------------------------------------------------

WORDINGS = ["4", "The answer is 4.", "**4**", "<answer>4.0</answer>"]
OVERRULING = {"merge": "The answer is 5.", "revise": "5", "improve": "5", "rank": "A > B > C"}


@EVERY
@settings(max_examples=8, deadline=None)
@given(
    weights=st.lists(st.sampled_from([0.0, 0.5, 1.0, 7.0]), min_size=3, max_size=5),
    wording=st.lists(
        st.sampled_from(["4", "The answer is 4.", "**4**", "<answer>4.0</answer>"]), min_size=5, max_size=5
    ),
)
def test_a_unanimous_panel_is_never_overruled(name: str, weights: list[float], wording: list[str]) -> None:
    fakes = panel_of(
        wording[: len(weights)], merge="The answer is 5.", revise="5", improve="5", rank="A > B > C"
    )
    result = trio.run(asked, name, fakes, weights)
    assert str(result.final_synthesis) in wording
    assert result.status == "success"
    assert "synthesis" not in [step.name for step in result.steps]


@EVERY
@settings(max_examples=8, deadline=None)
@given(
    answers=st.lists(st.sampled_from(["4", "5", "6"]), min_size=4, max_size=4),
    order=st.permutations(range(4)),
)
def test_the_order_of_registration_changes_nothing_where_weights_differ(
    name: str, answers: list[str], order: list[int]
) -> None:
    weights = [4.0, 3.0, 2.0, 1.5]
    first = trio.run(asked, name, panel_of(answers), weights)
    fakes = panel_of(answers)
    second = trio.run(asked, name, [fakes[at] for at in order], [weights[at] for at in order])
    assert str(first.final_synthesis) == str(second.final_synthesis)
    assert (first.confidence, first.status, first.notices) == (
        second.confidence,
        second.status,
        second.notices,
    )
    assert [(s.name, [r.content for r in s.responses]) for s in first.steps] == [
        (s.name, [r.content for r in s.responses]) for s in second.steps
    ]


@pytest.mark.parametrize(
    "name", ["vote", "vote at once", "vote by plurality", "cascade", "debate", "best_of", "rank"]
)
@settings(max_examples=10, deadline=None)
@given(
    answers=st.lists(st.sampled_from(["4", "5"]), min_size=3, max_size=3),
    order=st.permutations(range(3)),
)
def test_two_of_three_equal_models_decide_in_whatever_order_they_stand(
    name: str, answers: list[str], order: list[int]
) -> None:
    majority = max(answers, key=answers.count)
    for row in (answers, [answers[at] for at in order]):
        result = trio.run(asked, name, panel_of(row, rank=preferring(majority)))
        assert str(result.final_synthesis) == majority
        assert result.status == "success"


@EVERY
async def test_one_usable_answer_is_not_compared_and_it_is_told(name: str) -> None:
    fakes = panel_of(
        ["The answer is 4.", ModelError("down", kind="server"), ModelError("down", kind="server")]
    )
    result = await asked(name, fakes)
    assert str(result.final_synthesis) == "The answer is 4."
    if name not in {"self_consistency", "route by a model"}:  # these ask one model from the beginning
        assert len(fakes[0].calls) == 1
        assert any("only 'a' gave a usable answer" in notice for notice in result.notices)


@pytest.mark.parametrize("name", [each for each in EXPLAINED if each not in {"fields", "route"}])
@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
async def test_the_calls_are_as_the_table_says(name: str, number: int) -> None:
    counts = []
    for answers in (["4"] * 5, ["4", "5", "6", "7", "8"]):
        rounds = iter(answers)
        fakes = panel_of(answers[:number])
        if name == "self_consistency":
            fakes[0] = member("a", lambda _, rounds=rounds: next(rounds))
        made = orchestrator_of(fakes)
        await made.process_responses("What is 2 + 2?", strategy=name, use_cache=False)
        counts.append(sum(len(fake.calls) for fake in fakes))
    assert tuple(counts) == explained(name).calls_for(number)


# --- faults ----------------------------------------------------------------------------------------------

HANGS = FakeAnswer("The answer is 4.", seconds=math.inf)
FAULTS: dict[str, Any] = {
    "hangs": HANGS,
    "refuses": FakeAnswer(refusal="I cannot help with that."),
    "returns nothing": FakeAnswer(""),
    "crashes": ValueError("a bug"),
    "is down": ModelError("down", kind="server"),
    "is cut off": FakeAnswer("The answer is", finish_reason="length"),
    "has no key": ModelError("bad key", kind="auth"),
}


@EVERY
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("who", ["a", "b", "c"])
async def test_a_member_that_fails_costs_no_answer_and_no_truth(
    name: str, fault: str, who: str, autojump_clock: MockClock
) -> None:
    answers = {"a": "The answer is 4.", "b": "The answer is 5.", "c": "The answer is 4."}
    fakes = panel_of([FAULTS[fault] if who == each else answer for each, answer in answers.items()])
    for fake in fakes:
        fake._usage = Usage(input=10, output=5)
    with trio.fail_after(100):
        result = await asked(name, fakes, timeout=60)
    check_truth(result, fakes)
    touched = any(
        task_of(call.request) == "answer" and (call.outcome != "cancelled" or result.failures)
        for fake in fakes
        if fake.name == who
        for call in fake.calls
    )
    assert result.status == ("degraded" if touched else "success") or name == "cascade"
    if touched:
        assert any(failure.model_name == who for failure in result.failures) or result.notices


@EVERY
@pytest.mark.parametrize("fault", ["hangs", "refuses", "returns nothing", "crashes", "is down"])
async def test_a_reader_that_fails_costs_no_answer_and_no_truth(
    name: str, fault: str, autojump_clock: MockClock
) -> None:
    broken = dict.fromkeys(TASKS, FAULTS[fault])
    fakes = panel_of(["The answer is 4.", "The answer is 5.", "The answer is 6."], **broken)
    for fake in fakes:
        fake._usage = Usage(input=10, output=5)
    with trio.fail_after(100):
        result = await asked(name, fakes, timeout=60)
    check_truth(result, fakes)
    if any(task_of(call.request) != "answer" for fake in fakes for call in fake.calls):
        assert result.status == "degraded"
    assert str(result.final_synthesis).startswith("The answer is")


@EVERY
@pytest.mark.parametrize("fault", ["refuses", "returns nothing", "crashes", "is down", "hangs"])
async def test_where_all_fail_the_error_names_each(name: str, fault: str, autojump_clock: MockClock) -> None:
    fakes = panel_of([FAULTS[fault]] * 3)
    with trio.fail_after(100), pytest.raises(QuorumNotReached) as told:
        await asked(name, fakes, timeout=60)
    assert told.value.answered == 0
    assert told.value.failures
    assert all(fake.running == 0 for fake in fakes)


@EVERY
async def test_a_straggler_after_the_grace_is_really_cancelled(name: str, autojump_clock: MockClock) -> None:
    def slow(_request: ModelRequest) -> Any:
        return HANGS

    fakes = panel_of(["The answer is 4.", "The answer is 4.", slow])
    with trio.fail_after(100):
        result = await asked(name, fakes, grace=2)
    assert str(result.final_synthesis) == "The answer is 4."
    assert result.response_time <= 3
    assert (fakes[2].running, fakes[2].cancelled) == (0, len(fakes[2].calls))


@EVERY
async def test_the_budget_ends_a_run_with_an_answer_and_it_is_told(name: str) -> None:
    fakes = panel_of(["The answer is 4.", "The answer is 5.", "The answer is 6."])
    for fake in fakes:
        fake._usage = Usage(input=1_000_000, output=0)
    if name == "route by a model":  # nobody has answered yet
        with pytest.raises(QuorumNotReached, match="'b' was not asked: the budget is used up"):
            await asked(name, fakes, max_cost=0.5)
        return
    result = await asked(name, fakes, max_cost=0.5)
    check_truth(result, fakes)
    assert sum(len(fake.calls) for fake in fakes) <= 3
    assert result.status == "degraded" or len(result.steps) == 1


@EVERY
async def test_a_budget_that_is_used_up_before_the_first_step_is_a_quorum_that_is_not_reached(
    name: str,
) -> None:
    failure = ModelError("no", kind="content", retryable=False, usage=Usage(input=1_000_000, output=0))
    fakes = panel_of([failure, failure, failure])
    with pytest.raises(QuorumNotReached) as told:
        await asked(name, fakes, max_cost=0.5, tools=[Tool("f")], tool_policy="vote")
    assert told.value.answered == 0


@EVERY
async def test_a_text_that_ends_an_answer_ends_no_ranking_and_no_grades(name: str) -> None:
    fakes = panel_of(["The answer is 4.", "The answer is 5.", "The answer is 6."])
    await asked(name, fakes, options={"stop": ["\n"], "max_tokens": 100})
    requests = [call.request for fake in fakes for call in fake.calls]
    writes = {"answer", "improve", "revise", "merge"}
    assert requests
    for request in requests:
        assert request.options.stop == (("\n",) if task_of(request) in writes else None)


@EVERY
async def test_all_events_of_a_run_are_of_a_step_that_has_begun(name: str) -> None:
    fakes = panel_of(["The answer is 4.", "The answer is 5.", "The answer is 6."])
    made = orchestrator_of(fakes)
    open_step: tuple[str, int] | None = None
    async with made, made.stream_responses("What is 2 + 2?", strategy=STRATEGIES[name]) as run:
        async for event in run:
            kind, place = type(event).__name__, (getattr(event, "stage", ""), getattr(event, "round", 0))
            if kind == "StageStarted":
                assert open_step is None
                open_step = place
            elif kind == "StageCompleted":
                assert open_step == place
                open_step = None
            elif kind.startswith("Model") or kind == "Chunk":
                assert open_step == place
        result = await run.result()
    assert result.final_synthesis is not None
