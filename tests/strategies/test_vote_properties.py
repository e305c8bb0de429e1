"""What holds of every vote: stopping early, order, weights; and the vote on recorded answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.coordinator_runs import by_weight, run
from helpers.panels import text_panel
from ultra.scoring.final_answers import equal_answers
from ultra.strategies import SelfConsistency, Vote
from ultra.strategies.ballots import Tally
from ultra.testing import FakeModel

if TYPE_CHECKING:
    from ultra import OrchestrationResult

PANELS = st.lists(
    st.tuples(st.sampled_from("123"), st.sampled_from([0.5, 1.0, 2.0, 3.5])), min_size=2, max_size=6
)
RULES = st.sampled_from(["majority", "plurality"])


def vote(
    panel: list[tuple[str, float]], strategy: Any, order: Any = None, **fields: Any
) -> OrchestrationResult:
    """A vote of models a, b, c, … with these answers and weights, registered in this order."""
    models = [
        (FakeModel({"Candidate": "The answer is 9.", "": f"The answer is {answer}."}, name=name), weight)
        for name, (answer, weight) in zip("abcdef", panel, strict=False)
    ]
    if order is not None:
        order.shuffle(models)

    async def go() -> OrchestrationResult:
        return await run(by_weight(models), strategy=strategy, **fields)

    return trio.run(go)


def winner_of_all(panel: list[tuple[str, float]], rule: Any) -> tuple[str | None, bool]:
    """The winner if all are asked, and whether no other answer has as much weight."""
    votes: dict[str, float] = {}
    for answer, weight in panel:
        votes[answer] = votes.get(answer, 0.0) + weight
    most = max(votes.values())
    return Tally(votes, sum(votes.values())).winner(rule), list(votes.values()).count(most) == 1


@settings(max_examples=60, deadline=None)
@given(PANELS, RULES)
def test_stopping_early_gives_what_asking_all_gives(panel: list[tuple[str, float]], rule: Any) -> None:
    winner, is_clear = winner_of_all(panel, rule)
    result = vote(panel, Vote(rule=rule))
    assert len(result.steps[0].responses) <= len(panel)
    if winner is None:
        assert (str(result.final_synthesis), len(result.steps[0].responses)) == (
            "The answer is 9.",
            len(panel),
        )
    elif is_clear:
        assert str(result.final_synthesis) == f"The answer is {winner}."
    else:
        assert result.synthesis_source == "selected"


@settings(max_examples=30, deadline=None)
@given(PANELS, RULES, st.randoms(use_true_random=False))
def test_the_order_of_registration_changes_no_clear_outcome(
    panel: list[tuple[str, float]], rule: Any, order: Any
) -> None:
    _, is_clear = winner_of_all(panel, rule)
    if is_clear:
        first, second = vote(panel, Vote(rule=rule)), vote(panel, Vote(rule=rule), order)
        assert str(first.final_synthesis) == str(second.final_synthesis)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.5, 3.0]), min_size=2, max_size=6), RULES, st.booleans())
def test_a_unanimous_panel_is_never_overruled(weights: list[float], rule: Any, at_once: Any) -> None:
    result = vote([("5", weight) for weight in weights], Vote(rule=rule, at_once=at_once))
    assert (str(result.final_synthesis), result.confidence, result.status) == (
        "The answer is 5.",
        1.0,
        "success",
    )


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from("1234"), min_size=1, max_size=9))
def test_self_consistency_gives_the_most_frequent_sample(samples: list[str]) -> None:
    result = trio.run(_sampled, samples)
    votes = {answer: samples.count(answer) for answer in samples}
    chosen = str(result.final_synthesis).removeprefix("The answer is ").removesuffix(".")
    assert votes[chosen] == max(votes.values())


async def _sampled(samples: list[str]) -> OrchestrationResult:
    model = FakeModel([f"The answer is {answer}." for answer in samples], name="a")
    return await run(by_weight([(model, 1.0)]), strategy=SelfConsistency(samples=len(samples)))


@pytest.mark.parametrize(("name", "gain"), [("gsm", 0.0), ("math-l5", 0.03)])
def test_on_recorded_answers_three_models_vote_better_than_each_with_less_than_three_calls(
    name: str, gain: float
) -> None:
    header, questions = text_panel(name)
    best_by = {model: sum(q["answers"][model]["right"] for q in questions) for model in header["models"]}
    panel = sorted(header["models"], key=best_by.__getitem__, reverse=True)[:3]
    right, asked = 0, 0
    for question in questions:
        finals = equal_answers([question["answers"][model]["text"] for model in panel], question["question"])
        votes: dict[str, float] = {}
        for count, final in enumerate(finals, start=1):
            asked += 1
            if final is not None:
                votes[final] = votes.get(final, 0.0) + 1
            if count > 1 and Tally(votes, count).is_certain("plurality", 3 - count):
                break
        winner = Tally(votes, 3).winner("plurality")
        chosen = panel[0] if winner is None else panel[finals.index(winner)]
        right += question["answers"][chosen]["right"]
    assert right >= max(best_by.values()) + gain * len(questions) - 0.005 * len(questions)
    assert 2.0 <= asked / len(questions) <= 2.7
