"""Scores of the answers: agreement, a judge, a scorer of one's own."""

from __future__ import annotations

from ultra import (
    MultiLLMOrchestrator,
)
from ultra.testing import FakeModel


async def test_agreement_scores_the_initial_answers_by_default() -> None:
    orchestrator = MultiLLMOrchestrator()
    for name, answer in (("a", "It is Paris."), ("b", "it is paris"), ("c", "Never Berlin!")):
        orchestrator.register_model(name, FakeModel(answer, name=name))

    results = await orchestrator.process_responses("Capital?", stages=["initial"])

    scores = {name: response.quality for name, response in results["initial_responses"].items()}
    assert scores == {"a": 0.5, "b": 0.5, "c": 0.0}
    assert results["quality_basis"] == "votes"
    assert results["metrics"]["a"].quality_scores == [0.5]


async def test_a_judge_grades_the_answers_and_its_grades_stand_before_the_agreement() -> None:
    orchestrator = MultiLLMOrchestrator(judge="judge")
    orchestrator.register_model("a", FakeModel(name="a"))
    orchestrator.register_model("b", FakeModel(name="b"))
    orchestrator.register_model("judge", FakeModel("A: 9\nB: 3", name="judge"), weight=0)

    results = await orchestrator.process_responses("Q", models=["a", "b"], stages=["initial"])

    scores = [response.quality for response in results["initial_responses"].values()]
    assert sorted(score or 0.0 for score in scores) == [0.3, 0.9]


async def test_a_judge_that_fails_is_a_notice_and_fails_no_run() -> None:
    orchestrator = MultiLLMOrchestrator(judge="judge", max_retries=0, scorer=None)
    orchestrator.register_model("a", FakeModel(name="a"))
    orchestrator.register_model("judge", FakeModel(failures=[RuntimeError("asleep")] * 3), weight=0)

    results = await orchestrator.process_responses("Q", models=["a"])

    assert results["status"] == "success"
    assert "judge" in results["notices"][0]
    assert results["initial_responses"]["a"].quality is None


async def test_a_scorer_of_ones_own_takes_the_place_of_agreement() -> None:
    orchestrator = MultiLLMOrchestrator(scorer=lambda _, answers: dict.fromkeys(answers, 0.25))
    orchestrator.register_model("a", FakeModel(name="a"))

    results = await orchestrator.process_responses("Q", stages=["initial"])

    assert results["initial_responses"]["a"].quality == 0.25
