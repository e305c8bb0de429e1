"""Scores of the initial answers: by a scorer, by a judge, and by both."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from ultra import MultiLLMOrchestrator, OrchestrationResult, StageFailed
from ultra.messages.events import Chunk, StageCompleted
from ultra.testing import FakeAnswer, FakeModel


def orchestrator_of(*fakes: FakeModel, **settings: Any) -> MultiLLMOrchestrator:
    orchestrator = MultiLLMOrchestrator(max_retries=0, **settings)
    for fake in fakes:
        orchestrator.register_model(fake.name, fake)
    return orchestrator


def qualities(results: Any) -> dict[str, float | None]:
    return {name: response.quality for name, response in results.initial_responses.items()}


def fixed(**scores: float) -> Any:
    return lambda _question, _answers: scores


async def judged(orchestrator: MultiLLMOrchestrator) -> OrchestrationResult:
    return await orchestrator.process_responses("Q", models=["a", "b"], stages=["initial"])


async def test_scores_are_in_responses_metrics_and_events() -> None:
    orchestrator = orchestrator_of(FakeModel(name="a"), FakeModel(name="b"), scorer=fixed(a=0.25, b=1))
    async with orchestrator, orchestrator.stream_responses("Q", stages=["initial"]) as run:
        events = [event async for event in run]
        results = await run.result()
    assert qualities(results) == {"a": 0.25, "b": 1.0}
    assert results.metrics["a"].average_quality == 0.25
    (completed,) = [event for event in events if isinstance(event, StageCompleted)]
    assert completed.quality == {"a": 0.25, "b": 1.0}


async def test_the_scorer_is_given_the_question_and_the_answers_of_those_who_answered() -> None:
    given = []

    def score(question: str, answers: Any) -> dict[str, float]:
        given.append((question, dict(answers)))
        return {}

    orchestrator = orchestrator_of(
        FakeModel(name="a"), FakeModel(name="b", failures=[RuntimeError("down")] * 2), scorer=score
    )
    results = await orchestrator.process_responses("Q", stages=["initial", "synthesis"])
    assert given == [("Q", {"a": "a: Q"})]
    assert qualities(results) == {"a": None}


async def test_scores_of_models_that_are_unknown_are_left_out() -> None:
    async with orchestrator_of(FakeModel(name="a"), scorer=fixed(z=0.5, a=0.5)).stream_responses("Q") as run:
        events = [event async for event in run]
    assert qualities(await run.result()) == {"a": 0.5}
    assert next(event.quality for event in events if isinstance(event, StageCompleted)) == {"a": 0.5}


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({"a": 1.5}, "the score 1.5; a score is a number from 0 to 1"),
        ({"a": float("nan")}, "a number from 0 to 1"),
        ({"a": True}, "a number from 0 to 1"),
        ({"a": "0.5"}, "a number from 0 to 1"),
        (0.5, "must give a mapping"),
        (None, "must give a mapping"),
    ],
)
async def test_what_is_no_score_ends_the_run_and_says_so(scores: Any, message: str) -> None:
    orchestrator = orchestrator_of(FakeModel(name="a"), scorer=lambda _question, _answers: scores)
    with pytest.raises(StageFailed, match=f"the scorer of stage 'initial' failed.*{message}"):
        await orchestrator.process_responses("Q")


async def test_a_scorer_that_raises_ends_the_run_and_harms_nobody() -> None:
    def broken(_question: str, _answers: Any) -> Any:
        raise ZeroDivisionError("mine")

    async with orchestrator_of(FakeModel(name="a"), scorer=broken) as orchestrator:
        with pytest.raises(StageFailed, match="mine"):
            await orchestrator.process_responses("Q")
        assert orchestrator.tree().find("/coordinator").restarts == 0


def test_a_scorer_that_cannot_be_called_is_refused() -> None:
    with pytest.raises(ValueError, match="it must be a function"):
        MultiLLMOrchestrator(scorer=0.5)  # type: ignore[arg-type]


# --- the judge --------------------------------------------------------------------------------------


async def test_the_judge_is_asked_through_its_actor_without_knowing_who_wrote_what() -> None:
    judge = FakeModel("A: 10\nB: 5", name="judge")
    orchestrator = orchestrator_of(FakeModel("x", name="a"), FakeModel("y", name="b"), judge, judge="judge")
    results = await judged(orchestrator)
    assert sorted(qualities(results).values(), key=str) == [0.5, 1.0]
    (prompt,) = judge.prompts
    assert "Candidate A:" in prompt
    assert orchestrator.get_metrics()["judge"].requests == 1
    assert "judge" not in results.metrics


async def test_what_the_judge_leaves_out_keeps_the_scorers_score_and_is_told() -> None:
    judge = FakeModel("A: 10", name="judge")
    orchestrator = orchestrator_of(
        FakeModel(name="a"), FakeModel(name="b"), judge, judge="judge", scorer=fixed(a=0.1, b=0.1)
    )
    results = await judged(orchestrator)
    assert sorted(qualities(results).values(), key=str) == [0.1, 1.0]
    assert "the judge 'judge' gave no clear grade to: " in results.notices[0]
    assert results.status == "success"


@pytest.mark.parametrize("answer", ["no idea", "A: 11\nB: eleven"])
async def test_a_judge_that_says_nothing_usable_changes_nothing(answer: str) -> None:
    judge = FakeModel(answer, name="judge")
    orchestrator = orchestrator_of(
        FakeModel(name="a"), FakeModel(name="b"), judge, judge="judge", scorer=fixed(a=0.1, b=0.2)
    )
    results = await judged(orchestrator)
    assert qualities(results) == {"a": 0.1, "b": 0.2}
    assert results.status == "success"


async def test_a_judge_that_fails_is_a_notice() -> None:
    judge = FakeModel(name="judge", failures=[RuntimeError("asleep")] * 9)
    orchestrator = orchestrator_of(
        FakeModel(name="a"), FakeModel(name="b"), judge, judge="judge", scorer=None
    )
    results = await judged(orchestrator)
    assert "the judge 'judge' gave no scores: All attempts failed" in results.notices[0]
    assert (results.status, results.failures) == ("success", [])


async def test_a_judge_that_hangs_takes_no_more_than_its_share_of_the_time(autojump_clock: MockClock) -> None:
    judge = FakeModel(name="judge", seconds=1000)
    orchestrator = orchestrator_of(FakeModel(name="a"), FakeModel(name="b"), judge, judge="judge", timeout=10)
    begun = trio.current_time()
    results = await orchestrator.process_responses("Q", models=["a", "b"])
    assert trio.current_time() == pytest.approx(begun + 5)
    assert "did not answer in time" in results.notices[0]
    assert (results.status, judge.cancelled) == ("success", 1)


async def test_models_that_hang_leave_the_judge_its_share_of_the_time(autojump_clock: MockClock) -> None:
    judge = FakeModel("A: 10", name="judge", seconds=0.9)
    orchestrator = orchestrator_of(
        FakeModel(name="a"), FakeModel(name="b", seconds=1000), judge, judge="judge", timeout=10
    )
    results = await orchestrator.process_responses("Q", models=["a", "b"])
    assert qualities(results) == {"a": 1.0}


async def test_a_judge_whose_window_is_too_small_is_a_notice() -> None:
    judge = FakeModel(name="judge", context_window=20)
    orchestrator = orchestrator_of(FakeModel(name="a"), FakeModel(name="b"), judge, judge="judge")
    results = await judged(orchestrator)
    assert "the judge 'judge' gave no scores" in results.notices[0]


async def test_an_unknown_judge_is_refused_before_any_model_is_called() -> None:
    fake = FakeModel(name="a")
    with pytest.raises(
        ValueError, match="the judge is not registered: unknown model 'nobody'; registered: a"
    ):
        await orchestrator_of(fake, judge="nobody").process_responses("Q")
    assert len(fake.calls) == 0


async def test_the_judges_words_are_not_streamed() -> None:
    judge = FakeModel(FakeAnswer("A: ", "10"), name="judge")
    orchestrator = orchestrator_of(FakeModel(name="a"), judge, judge="judge")
    async with orchestrator, orchestrator.stream_responses("Q", models=["a"]) as run:
        events = [event async for event in run]
    assert {event.model_name for event in events if isinstance(event, Chunk)} == {"a"}
