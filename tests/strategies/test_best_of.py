"""The best of several answers: by a verifier, a scorer, a judge; and what happens where there is none."""

from __future__ import annotations

from typing import Any

import pytest

from helpers.coordinator_runs import by_weight, failing, run
from helpers.model_actors import register
from helpers.panel_members import grading, member
from ultra import BadCall, OrchestrationResult, QuorumNotReached, StageFailed
from ultra.errors import ModelError
from ultra.messages.request import ModelRequest
from ultra.strategies import BestOf
from ultra.testing import FakeModel


async def best_of(
    verify: Any = None, *, weights: Any = (1.0, 1.0, 1.0), **fields: Any
) -> OrchestrationResult:
    fakes = [FakeModel(f"{name} says so", name=name) for name in "abc"]
    return await run(by_weight(zip(fakes, weights, strict=True)), strategy=BestOf(verify=verify), **fields)


def scores(**given: float) -> Any:
    return lambda _question, _answers: given


# --- by a verifier -----------------------------------------------------------------------------------


async def test_the_answer_that_passes_stands_word_for_word() -> None:
    result = await best_of(lambda text: text.startswith("b"))
    assert result.final_synthesis == result.initial_responses["b"]
    assert (result.strategy, result.synthesis_source, result.status) == ("best_of", "selected", "success")
    assert result.confidence == 1.0


async def test_the_highest_number_of_a_verifier_wins() -> None:
    result = await best_of(lambda text: {"a": 0.2, "b": 0.5, "c": 0.9}[text[0]])
    assert (str(result.final_synthesis), result.confidence) == ("c says so", 0.9)


async def test_of_equals_that_pass_the_scorer_decides() -> None:
    result = await best_of(lambda text: text[0] in "ab", scorer=scores(a=0.1, b=0.4, c=0.9))
    assert (str(result.final_synthesis), result.confidence) == ("b says so", 1.0)
    assert result.final_synthesis is not None
    assert result.final_synthesis.quality == 0.4


async def test_of_equals_without_scores_the_heaviest_wins() -> None:
    result = await best_of(lambda _text: True, weights=(1.0, 3.0, 2.0))
    assert str(result.final_synthesis) == "b says so"


@pytest.mark.parametrize("nothing", [False, 0, 0.0])
async def test_where_nothing_passes_the_best_by_score_stands_in_and_is_told(nothing: Any) -> None:
    result = await best_of(lambda _text: nothing, scorer=scores(a=0.1, b=0.4, c=0.2))
    assert (str(result.final_synthesis), result.synthesis_source) == ("b says so", "selected")
    assert (result.status, result.confidence) == ("degraded", 0.4)
    assert result.notices == ["no answer passed the verifier; the one that scores best stands in its place"]


async def test_a_verifier_that_raises_ends_the_run() -> None:
    def broken(_text: str) -> bool:
        raise ZeroDivisionError("mine")

    with pytest.raises(StageFailed, match=r"the verifier of stage 'initial' failed.*mine") as caught:
        await best_of(broken)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize("grade", [None, "yes", 1.5, -1, float("nan")])
async def test_what_is_no_grade_ends_the_run_and_says_so(grade: Any) -> None:
    with pytest.raises(StageFailed, match="it must give a bool, or a number from 0 to 1"):
        await best_of(lambda _text: grade)


@pytest.mark.parametrize("verify", ["text", 7, True])
def test_a_verifier_that_cannot_be_called_is_refused(verify: Any) -> None:
    with pytest.raises(BadCall, match=f"verify is {verify!r}; it must be a function of an answer's text"):
        BestOf(verify=verify)


# --- without one -------------------------------------------------------------------------------------


async def test_the_scorer_decides_and_says_how_sure_it_is() -> None:
    result = await best_of(scorer=scores(a=0.1, b=0.4, c=0.2))
    assert (str(result.final_synthesis), result.confidence) == ("b says so", 0.4)
    assert result.status == "success"


async def test_ties_go_by_weight() -> None:
    result = await best_of(scorer=scores(a=0.4, b=0.4, c=0.4), weights=(1.0, 2.0, 3.0))
    assert str(result.final_synthesis) == "c says so"


async def test_the_judge_stands_before_the_scorer() -> None:
    def grade(request: ModelRequest) -> str:
        """Prefer the answer of c, wherever it stands."""
        before, _, _ = request.prompt.partition("c says so")
        best = before.rpartition("Candidate ")[2][0]
        return "\n".join(f"{label}: {9 if label == best else 2}" for label in "ABC")

    judge = register(FakeModel(grade), "judge")
    result = await best_of(scorer=scores(a=0.9, b=0.9, c=0.1), judge=judge)
    assert (str(result.final_synthesis), result.confidence) == ("c says so", 0.9)
    assert (result.confidence_basis, result.quality_basis) == ("quality", "grade")


async def test_without_scorer_and_judge_the_heaviest_wins_with_its_share_of_the_votes() -> None:
    result = await best_of(weights=(1.0, 2.0, 1.0))
    assert (str(result.final_synthesis), result.confidence) == ("b says so", 0.5)
    assert (result.confidence_basis, result.quality_basis) == ("votes", None)  # nothing was scored


async def test_a_single_answer_is_not_scored() -> None:
    def never(_question: str, _answers: Any) -> Any:
        raise AssertionError("there is nothing to compare")

    models = [failing("a"), FakeModel("b says so", name="b")]
    result = await run([register(fake, fake.name) for fake in models], strategy=BestOf(), scorer=never)
    assert (str(result.final_synthesis), result.status) == ("b says so", "degraded")


async def test_if_all_fail_the_run_fails() -> None:
    with pytest.raises(QuorumNotReached, match="'initial' got 0 of the 1"):
        await run([register(failing("a"), "a")], strategy=BestOf())


# --- by a judge among the models ------------------------------------------------------------------------


async def judged(*fakes: FakeModel, **fields: Any) -> OrchestrationResult:
    return await run(by_weight((fake, 1.0) for fake in fakes), strategy=BestOf(judge="c", **fields))


async def test_a_model_of_the_run_grades_and_the_best_stands_word_for_word() -> None:
    fakes = member("a", "text a"), member("b", "text b"), member("c", "text c", judge=grading(a=3, b=9, c=5))
    result = await judged(*fakes)
    assert result.final_synthesis == result.initial_responses["b"]
    assert (result.confidence, result.confidence_basis, result.status) == (0.9, "quality", "success")
    assert [step.name for step in result.steps] == ["initial", "judge"]


@pytest.mark.parametrize("said", ["They are all fine.", ModelError("down", kind="bad_request")])
async def test_a_judge_without_grades_is_told_and_the_answers_are_compared_without_it(said: Any) -> None:
    result = await judged(member("a", "4"), member("b", "5"), member("c", "5", judge=said))
    assert (str(result.final_synthesis), result.status) == ("5", "degraded")
    assert "the judge 'c' gave no grades; the answers were compared without it" in result.notices


async def test_a_single_usable_answer_is_not_graded_and_it_is_told() -> None:
    judge = member("c", "5")
    result = await judged(failing("a"), failing("b"), judge)
    assert len(judge.calls) == 1
    assert "only 'c' gave a usable answer: it stands, without a comparison" in result.notices
