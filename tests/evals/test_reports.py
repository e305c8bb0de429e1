"""The report: its labels can be read, and each arm stands beside what costs as much."""

from __future__ import annotations

from functools import cache

import pytest

from ultra.evals.analysis import Measured, findings_of
from ultra.evals.arms import Arm, Outcome
from ultra.evals.findings import Findings
from ultra.evals.plots import _labels
from ultra.evals.report_text import as_markdown, as_text
from ultra.evals.simulated import SimulatedModels


def measured(name: str, kind: str, calls: float, score: float = 1.0, **options: int) -> Measured:
    outcome = Outcome(text="4", score=score, calls=calls, cost=calls * 0.002)
    arm = Arm(name=name, kind=kind, options=dict(options))  # type: ignore[arg-type]
    return Measured(arm, [outcome] * 30, "a note" if kind == "strategy" else "")


@cache
def report() -> Findings:
    panel = SimulatedModels(accuracies=(0.7, 0.7), questions=30).panel()
    arms = [
        measured("model-a", "member", 1),
        measured("model-b", "member", 1),
        measured("best member", "best", 1),
        measured("oracle", "oracle", 2),
        measured("best member x3", "samples", 2.1, samples=3),
        measured("best member x7", "samples", 4.4, samples=7),
        measured("vote", "strategy", 2.4),
        measured("debate", "strategy", 4.9, 0.0),
        measured("route", "strategy", 1.2),
    ]
    return findings_of(
        panel=panel,
        questions=panel.dataset.questions,
        grader="number",
        measured=arms,
        left_out={"rank": "nobody ranked"},
        notices=["the limit of cost was reached"],
    )


@pytest.mark.parametrize(
    ("arm", "baseline"), [("vote", "best member x3"), ("debate", "best member x7"), ("route", "best member")]
)
def test_an_arm_stands_beside_the_samples_that_are_nearest_in_calls_and_in_dollars(
    arm: str, baseline: str
) -> None:
    found = report().arm(arm)
    assert found.versus_equal_calls is not None
    assert found.versus_equal_money is not None
    assert found.versus_equal_calls.baseline == found.versus_equal_money.baseline == baseline


def test_the_table_says_what_both_cost() -> None:
    text = "\n".join(as_text(report()))
    assert "equal calls: 4.40 to 4.90" in text
    assert "equal money: 8.8 to 9.8" in text


def test_what_was_not_measured_stands_behind_the_tables() -> None:
    lines = as_text(report())
    assert lines[:3] == [
        "simulated: 30 questions, 2 models, graded by number",
        "models: model-a, model-b",
        "the limit of cost was reached",
    ]
    assert lines[lines.index("NOT MEASURED") + 1] == "  rank: nobody ranked"
    assert lines[lines.index("NOTES") + 1] == "  vote: a note"
    assert "## Not measured\n\n- rank: nobody ranked" in as_markdown(report())


def test_points_that_stand_on_each_other_have_one_label() -> None:
    points = [(1.0, 50.0), (1.01, 50.2), (10.0, 50.0), (1.0, 90.0)]
    assert [numbers for numbers, _ in _labels(points, (0.5, 20.0), (40.0, 100.0))] == ["1, 2", "3", "4"]
