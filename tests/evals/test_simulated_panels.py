"""Simulated panels against theory: the harness must find within its intervals what the right number is."""

from __future__ import annotations

from functools import cache

import pytest

from ultra.errors import BadCall
from ultra.evals.arms import strategy_arm
from ultra.evals.evaluation import Evaluation
from ultra.evals.findings import Findings
from ultra.evals.simulated import SCENARIOS, SimulatedModels, SimulatedRecorder, scenario


def measured(models: SimulatedModels, *strategies: str) -> Findings:
    panel = models.panel()
    arms = [strategy_arm(name) for name in strategies]
    recorder = SimulatedRecorder(models, panel)
    return Evaluation(panel, arms, recorder=recorder, most_samples=3).run()  # type: ignore[arg-type]


@cache
def independent() -> Findings:
    return measured(SimulatedModels(accuracies=(0.7, 0.7, 0.7), questions=120), "vote")


def test_condorcets_theorem_gives_the_accuracy_of_independent_voters() -> None:
    assert SimulatedModels(accuracies=(0.7, 0.7, 0.7)).expected_majority() == pytest.approx(
        0.7**3 + 3 * 0.7**2 * 0.3
    )
    assert SimulatedModels(accuracies=(0.6,) * 5).expected_majority() == pytest.approx(0.68256)


def test_the_vote_of_independent_models_is_as_good_as_condorcet_says() -> None:
    accuracy = independent().arm("vote").accuracy
    assert accuracy.low <= 0.784 <= accuracy.high


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
