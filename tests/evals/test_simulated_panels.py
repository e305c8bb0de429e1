"""Simulated panels against theory: the harness must find within its intervals what the right number is."""

from __future__ import annotations

from functools import cache

import pytest

from ultra.errors import BadCall
from ultra.evals.arms import strategy_arm
from ultra.evals.evaluation import Evaluation
from ultra.evals.findings import Findings
from ultra.evals.simulated import SCENARIOS, SimulatedModels, SimulatedRecorder, scenario
from ultra.evals.statistics import wilson


def measured(models: SimulatedModels, *strategies: str, **options: object) -> Findings:
    panel = models.panel()
    arms = [strategy_arm(name, options) for name in strategies]
    recorder = SimulatedRecorder(models, panel)
    evaluation = Evaluation(panel, arms, recorder=recorder, fit=False, most_samples=1)  # type: ignore[arg-type]
    return evaluation.run()


@cache
def independent() -> Findings:
    return measured(SimulatedModels(accuracies=(0.7, 0.7, 0.7), questions=120), "vote", "cascade")


def within(share: float, expected: float, questions: int) -> bool:
    """Whether a share that was measured has what is expected in its interval."""
    interval = wilson(share * questions, questions)
    return interval.low <= expected <= interval.high


def test_condorcets_theorem_gives_the_accuracy_of_independent_voters() -> None:
    assert SimulatedModels(accuracies=(0.7, 0.7, 0.7)).expected_majority() == pytest.approx(
        0.7**3 + 3 * 0.7**2 * 0.3
    )
    assert SimulatedModels(accuracies=(0.6,) * 5).expected_majority() == pytest.approx(0.68256)


def test_the_vote_of_independent_models_is_as_good_as_condorcet_says() -> None:
    accuracy = independent().arm("vote").accuracy
    assert accuracy.low <= 0.784 <= accuracy.high


def test_a_vote_that_stops_early_makes_the_calls_that_theory_says() -> None:
    three = SimulatedModels(accuracies=(0.7, 0.7, 0.7))
    assert three.expected_vote_calls() == pytest.approx(2 + 2 * 0.7 * 0.3)
    assert within(independent().arm("vote").calls - 2, three.expected_vote_calls() - 2, 120)


def test_of_five_voters_as_many_are_asked_as_theory_says() -> None:
    models = SimulatedModels(accuracies=(0.7,) * 5, questions=100)
    p, q = 0.7, 0.3
    alike, one_more = p**3 + q**3, 3 * p**3 * q + 3 * q**3 * p
    expected = 3 * alike + 4 * one_more + 5 * (1 - alike - one_more)
    assert models.expected_vote_calls() == pytest.approx(expected)
    # Calls are from 3 to 5, so half of what is above 3 is a share of at most the same spread.
    assert within((measured(models, "vote").arm("vote").calls - 3) / 2, (expected - 3) / 2, 100)


def test_a_cascade_costs_two_calls_and_one_more_where_two_disagree() -> None:
    models = SimulatedModels(accuracies=(0.7, 0.7, 0.7))
    assert models.expected_cascade_calls() == pytest.approx(2 + 2 * 0.7 * 0.3)
    cascade = independent().arm("cascade")
    assert within(cascade.calls - 2, models.expected_disagreement(0, 1), 120)
    assert within(cascade.accuracy.value, models.expected_majority(), 120)


def test_a_cascade_over_correlated_models_costs_less_as_theory_says() -> None:
    models = SimulatedModels(accuracies=(0.7, 0.7, 0.7), correlation=0.5, questions=70)
    assert models.expected_disagreement(0, 1) == pytest.approx(2 * 0.7 * 0.3 * (1 - 0.5))
    assert within(
        measured(models, "cascade").arm("cascade").calls - 2, models.expected_disagreement(0, 1), 70
    )


def test_where_wrong_answers_all_differ_a_cascade_also_pays_the_reader() -> None:
    models = SimulatedModels(accuracies=(0.7, 0.7, 0.7), alike=0.0, questions=100)
    cascade = measured(models, "cascade").arm("cascade")
    # A third where not both are right; a reader where fewer than two of three are. (Of 8 wrong numbers two
    # can be the same.)
    third, reader = 1 - 0.7**2, 0.3**3 + 3 * 0.7 * 0.3**2
    assert within((cascade.calls - 2) / 2, (third + reader) / 2, 100)


@pytest.mark.parametrize("choosing", [0.0, 1.0])
def test_a_route_is_as_good_as_the_choice_is(choosing: float) -> None:
    models = SimulatedModels(accuracies=(0.6, 0.7, 0.8), choosing=choosing, questions=70)
    expected = 0.75 if not choosing else 1 - 0.3 * 0.2
    assert models.expected_choice(0) == pytest.approx(expected)
    route = measured(models, "route", chooser="model-a").arm("route (chooser=model-a)")
    assert within(route.accuracy.value, expected, 70)
    assert route.calls == 2


def test_independent_models_have_uncorrelated_errors_and_as_many_votes_as_there_are() -> None:
    panel = independent().panel
    assert panel.mean_correlation == pytest.approx(0, abs=0.15)
    assert panel.effective_votes == pytest.approx(3, abs=0.8)
    assert panel.all_wrong.low <= 0.3**3 <= panel.all_wrong.high


def test_nothing_that_chooses_passes_the_ceiling() -> None:
    findings = independent()
    assert findings.arm("oracle").accuracy.value == pytest.approx(findings.panel.ceiling)
    for arm in findings.arms:
        assert arm.accuracy.value <= findings.panel.ceiling
        assert arm.regret == pytest.approx(findings.panel.ceiling - arm.accuracy.value)


def test_the_share_on_which_all_are_wrong_and_the_ceiling_are_those_that_were_set() -> None:
    models = SimulatedModels(accuracies=(0.7,) * 3, correlation=0.3, all_wrong=0.12, questions=100)
    findings = measured(models, "vote")
    assert findings.panel.all_wrong.low <= 0.12 <= findings.panel.all_wrong.high
    assert findings.panel.ceiling == pytest.approx(1 - findings.panel.all_wrong.value)
    assert within(findings.arm("oracle").accuracy.value, 1 - 0.12, 100)
    assert within(findings.arm("vote").accuracy.value, models.expected_majority(), 100)


def test_the_cases_of_theory_are_all_there_are() -> None:
    for models in SCENARIOS.values():
        cases = models.patterns()
        assert sum(chance for _, chance in cases) == pytest.approx(1)
        assert sum(chance for right, chance in cases if not any(right)) == pytest.approx(
            models.expected_all_wrong()
        )
        for index, accuracy in enumerate(models.accuracies):
            assert sum(chance for right, chance in cases if right[index]) == pytest.approx(accuracy)


def test_correlation_and_common_failures_are_those_that_were_set() -> None:
    models = SimulatedModels(accuracies=(0.7,) * 5, correlation=0.2, all_wrong=0.075, questions=4_000)
    rows = [models.right(number) for number in range(models.questions)]
    wrong = sum(not any(row) for row in rows) / len(rows)
    assert wrong == pytest.approx(0.075, abs=0.015)
    assert models.expected_all_wrong() == pytest.approx(0.075)
    assert [sum(column) / len(rows) for column in zip(*rows, strict=True)] == pytest.approx(
        [0.7] * 5, abs=0.03
    )
    both = sum(not row[0] and not row[1] for row in rows) / len(rows)
    assert (both - 0.09) / 0.21 == pytest.approx(0.2, abs=0.06)


def test_equal_correlations_hide_how_often_all_fail() -> None:
    # Published work on ensembles: pairwise correlation does not tell the share on which all are wrong.
    one = SimulatedModels(accuracies=(0.7,) * 5, correlation=0.2)
    other = SimulatedModels(accuracies=(0.7,) * 5, correlation=0.2, all_wrong=0.079)
    assert other.expected_all_wrong() - one.expected_all_wrong() > 0.01


def test_the_cost_of_a_vote_that_asks_a_reader_on_disagreement_is_found() -> None:
    # With wrong answers that all differ, a majority is missing where two or three are wrong.
    models = SimulatedModels(accuracies=(0.7, 0.7, 0.7), alike=0.0, questions=40)
    arm = measured(models, "synthesize").arm("synthesize")
    price = (100 + 200 * 4) / 1e6
    reading = (100 + 200 * 3 + 800) / 1e6
    assert arm.calls == 7
    # Three answers, three analyses of three texts, and a synthesis of these and of the analyses.
    assert arm.cost == pytest.approx(3 * price + 4 * reading, rel=0.05)


def test_no_arm_is_called_better_where_models_only_repeat_each_other() -> None:
    models = SimulatedModels(accuracies=(0.7, 0.7, 0.7), correlation=1.0, questions=40)
    findings = measured(models, "vote", "best_of")
    assert {arm.verdict for arm in findings.arms} == {None, "no evidence"}


def test_a_reader_that_errs_hurts_and_the_report_says_so() -> None:
    models = SimulatedModels(accuracies=(0.85, 0.85, 0.85), reading=0.2, alike=0.3, questions=60)
    assert measured(models, "synthesize").arm("synthesize").verdict == "hurts"


def test_the_same_panel_gives_the_same_findings() -> None:
    models = SimulatedModels(accuracies=(0.7, 0.6, 0.8), alike=0.5, questions=25)
    assert measured(models, "vote", "best_of") == measured(models, "vote", "best_of")


def test_errors_that_cannot_be_are_refused_with_the_range() -> None:
    with pytest.raises(BadCall, match=r"all_wrong is 0.5; .* it is from 0\.\d+ to 0\.\d+"):
        SimulatedModels(accuracies=(0.7, 0.7, 0.7), correlation=0.2, all_wrong=0.5)
    with pytest.raises(BadCall, match=r"correlation is 0\.9"):
        SimulatedModels(accuracies=(0.9, 0.5), correlation=0.9)
    with pytest.raises(BadCall, match=r"there are: independent, correlated"):
        scenario("nope")


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_shipped_panel_can_be_made(name: str) -> None:
    models = scenario(name)
    assert len(models.panel(name).models) == len(models.accuracies)
