"""Every strategy under random fault plans: an answer or a named error, and the truth of all that happened.

A plan says, for each model and each task (answering, ranking, grading, merging, revising, improving,
choosing), how it fails, if it does.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from helpers.panel_members import grading, member, preferring
from ultra import (
    MemoryCache,
    MultiLLMOrchestrator,
    OrchestrationResult,
    Price,
    QuorumNotReached,
    UltraError,
    Usage,
)
from ultra.errors import DeadlineExceeded, ModelError, StageFailed
from ultra.strategies import (
    BestOf,
    Cascade,
    Debate,
    Fields,
    Layers,
    Rank,
    Route,
    SelfConsistency,
    Synthesize,
    Vote,
    strategy_names,
)
from ultra.testing import FakeAnswer, FakeModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ultra.messages.results import ModelFailure, ModelResponse

STRATEGIES: dict[str, Any] = {
    "synthesize": Synthesize(),
    "synthesize, unanimous kept": Synthesize(keep_unanimous=True, analysts="one"),
    "vote": Vote(),
    "vote at once": Vote(at_once=True),
    "self_consistency": SelfConsistency(samples=3),
    "best_of": BestOf(),
    "best_of by a judge": BestOf(judge="b"),
    "best_of by a verifier": BestOf(verify=lambda text: "4" in text),
    "rank": Rank(),
    "rank and merge": Rank(top=2, writer="c"),
    "cascade": Cascade(),
    "cascade by grades": Cascade(quality=0.5, end="last"),
    "layers": Layers(),
    "debate": Debate(),
    "debate with a judge": Debate(end="judge", judge="c"),
    "route": Route(choose=lambda _: ("a", "b")),
    "route by a model": Route(chooser="a", most=2),
    "fields": Fields(),
}
SCHEMA = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}
USAGE = Usage(input=10, output=5)
FAULTS: dict[str, Any] = {
    "hangs": FakeAnswer("The answer is 4.", seconds=math.inf),
    "is late": FakeAnswer("The answer is 4.", seconds=20),
    "refuses": FakeAnswer(refusal="I cannot help with that.", usage=USAGE),
    "returns nothing": FakeAnswer("", usage=USAGE),
    "crashes": ValueError("a bug"),
    "is down": ModelError("down", kind="server"),
    "is cut off": FakeAnswer("The answer is", finish_reason="length", usage=USAGE),
    "has no key": ModelError("bad key", kind="auth"),
    "babbles": FakeAnswer("Well, well. 7 of 9, as they say: B > Z > A > B.", usage=USAGE),
}
TASKS = ("answer", "rank", "judge", "merge", "improve", "revise", "choose")
NAMED = (QuorumNotReached, DeadlineExceeded, StageFailed)
PLANS = st.dictionaries(
    st.tuples(st.sampled_from("abcd"), st.sampled_from(TASKS)), st.sampled_from(sorted(FAULTS)), max_size=9
)


def fakes_of(name: str, answers: Sequence[str], plan: dict[tuple[str, str], str]) -> list[FakeModel]:
    made = []
    for model, answer in zip("abcd", answers, strict=False):
        said = f'{{"sum": {answer}}}' if name == "fields" else f"The answer is {answer}."
        tasks: dict[str, Any] = {
            "answer": said,
            "improve": said,
            "revise": said,
            "rank": preferring("4"),
            "judge": grading(answer=5),
            "choose": "b and c",
        }
        if name == "fields":
            tasks["merge"] = said
        broken = {task: FAULTS[fault] for (whose, task), fault in plan.items() if whose == model}
        tasks |= broken
        fake = member(model, tasks.pop("answer"), **tasks)
        fake._usage = USAGE
        made.append(fake)
    return made


async def asked(name: str, fakes: Sequence[FakeModel], **run: Any) -> OrchestrationResult:
    cache = MemoryCache()
    cache._secret = b"s" * 32
    made = MultiLLMOrchestrator(max_retries=0, cache=cache)
    for fake in fakes:
        made.register_model(fake.name, fake, price=Price(input=1.0, output=1.0))
    if name == "fields":
        run["output"] = SCHEMA
    with trio.fail_after(200):
        return await made.process_responses(
            "What is 2 + 2?", strategy=STRATEGIES[name], use_cache=False, timeout=60, **run
        )


def check_truth(result: OrchestrationResult, fakes: Sequence[FakeModel]) -> None:
    """Every call has its answer or its failure, and its price; the answer is what a model said."""
    answers = [response for step in result.steps for response in step.responses]
    ends: list[ModelResponse | ModelFailure] = [*answers, *result.failures]
    for fake in fakes:
        metrics = result.metrics[fake.name]
        assert metrics.attempts == len(fake.calls)
        assert metrics.requests == metrics.successes + metrics.failures + metrics.cancelled
        told = [each for each in ends if each.model_name == fake.name]
        ended = sum(call.outcome != "cancelled" for call in fake.calls)
        # What became needless is in no step; a failure of one that was never asked has no attempts.
        assert ended <= sum(each.attempts for each in told) <= len(fake.calls)
    paid = sum(each.cost or 0.0 for each in ends)
    assert result.cost == pytest.approx(paid + (result.other_cost or 0.0))
    for response in answers:
        spent = response.usage.plus(response.lost_usage)
        assert response.cost == pytest.approx(spent.total / 1e6)
    if result.failures:
        assert result.status == "degraded"
    if result.status == "degraded":
        assert result.failures or result.notices
    final = result.final_synthesis
    assert final is not None
    assert final.content
    assert result.synthesis_source is not None


async def tried(
    name: str, answers: Sequence[str], plan: dict[tuple[str, str], str], run: dict[str, Any]
) -> None:
    fakes = fakes_of(name, answers, plan)
    began = trio.current_time()
    error: UltraError | None = None
    try:
        check_truth(await asked(name, fakes, **run), fakes)
    except UltraError as raised:
        error = raised
    assert error is None or (isinstance(error, NAMED) and str(error))
    if isinstance(error, QuorumNotReached):
        assert error.answered < error.needed
    assert trio.current_time() - began <= 61
    assert all(fake.running == 0 for fake in fakes)


def test_every_strategy_of_the_catalog_is_tried_here() -> None:
    assert {name.split()[0].rstrip(",") for name in STRATEGIES} == {*strategy_names()}


@pytest.mark.parametrize("name", STRATEGIES)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    answers=st.lists(st.sampled_from("456"), min_size=3, max_size=4),
    plan=PLANS,
    run=st.fixed_dictionaries(
        {},
        optional={
            "quorum": st.sampled_from([1, 2, "all"]),
            "grace": st.sampled_from([0.5, 5.0]),
            "samples": st.just(2),
            "max_cost": st.sampled_from([1e-5, 5e-5]),
        },
    ),
)
def test_it_gives_an_answer_or_a_named_error_and_the_truth(
    name: str, answers: list[str], plan: dict[tuple[str, str], str], run: dict[str, Any]
) -> None:
    trio.run(tried, name, answers, plan, run, clock=MockClock(autojump_threshold=0))
