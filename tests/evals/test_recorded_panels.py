"""The recorded panels of real models: what was measured on them is found again."""

from __future__ import annotations

from functools import cache

import pytest

from helpers.paths import NO_PANELS, PANELS
from ultra.evals.arms import strategy_arm
from ultra.evals.evaluation import Evaluation
from ultra.evals.findings import Findings
from ultra.evals.graders import make_grader
from ultra.evals.panel import Panel

pytestmark = pytest.mark.skipif(not PANELS.exists(), reason=NO_PANELS)

THREE = ("Qwen2.5-72B-Instruct", "claude-3-5-sonnet-20241022", "gpt-4o-2024-08-06")


@cache
def maths() -> Findings:
    panel = Panel.open(PANELS / "math-l5.labels.jsonl.gz")
    panel.only(THREE)
    panel.dataset = panel.dataset.first(200)
    return Evaluation(panel, [strategy_arm("vote"), strategy_arm("synthesize")], unrecorded="fail").run()


def test_a_vote_of_models_of_equal_strength_helps_on_mathematics() -> None:
    vote = maths().arm("vote")
    assert vote.versus_best is not None
    assert vote.versus_best.difference.low > 0
    assert vote.confidence_auroc is not None
    assert vote.confidence_auroc > 0.7
    assert "its fallback answered" in vote.note


def test_what_is_not_recorded_is_left_out_and_told() -> None:
    findings = maths()
    assert "only its fallback could answer" in findings.left_out["synthesize"]
    assert findings.left_out["best member x3"] == "more samples of the best member are not recorded"
    stopped = Panel.open(PANELS / "math-l5.labels.jsonl.gz")
    stopped.only(THREE)
    stopped.dataset = stopped.dataset.first(30)
    left_out = Evaluation(stopped, [strategy_arm("vote")]).run().left_out
    assert "questions need answers that are not recorded" in left_out["vote"]


@pytest.mark.parametrize(("name", "wrong"), [("gsm", 0), ("math-l5", 1)])
def test_the_grader_agrees_with_the_published_verdicts(name: str, wrong: int) -> None:
    panel = Panel.open(PANELS / f"{name}.text.jsonl.gz")
    published = {"gsm": [376, 359, 366, 320, 322, 346], "math-l5": [240, 240, 236, 217, 215, 205]}[name]
    grader = make_grader("exact")
    questions = {question.id: question for question in panel.dataset.questions}
    right = dict.fromkeys(panel.models, 0.0)
    for question, answer in panel.answers():
        right[answer.model] += grader.grade(questions[question], answer.text or "")
    found = list(right.values())
    assert all(abs(one - other) <= wrong for one, other in zip(found, published, strict=True))
