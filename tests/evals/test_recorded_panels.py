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


def panel_of(questions: int) -> Panel:
    panel = Panel.open(PANELS / "math-l5.labels.jsonl.gz")
    panel.only(THREE)
    panel.dataset = panel.dataset.first(questions)
    return panel


@cache
def maths() -> Findings:
    arms = [strategy_arm("vote", {"rule": "plurality"}), strategy_arm("cascade", {"end": "last"})]
    return Evaluation(panel_of(150), arms).run()


def test_a_vote_of_models_of_equal_strength_helps_on_mathematics() -> None:
    vote = maths().arm("vote (rule=plurality)")
    assert vote.versus_best is not None
    assert vote.versus_best.difference.low > 0
    assert vote.confidence_auroc is not None
    assert vote.confidence_auroc > 0.7
    assert vote.note == ""


def test_a_cascade_asks_less_than_all_for_a_gain_like_that_of_the_vote() -> None:
    cascade, vote = maths().arm("cascade (end=last)"), maths().arm("vote (rule=plurality)")
    assert cascade.versus_best is not None
    assert cascade.versus_best.difference.low > 0
    assert 2 < cascade.calls < 3
    assert abs(cascade.accuracy.value - vote.accuracy.value) < 0.03


def test_weights_and_the_threshold_are_learned_from_recorded_answers() -> None:
    for name in ("vote (rule=plurality), fitted weights", "cascade (end=last), fitted"):
        arm = maths().arm(name)
        assert arm.versus_best is not None
        assert arm.versus_best.difference.low > 0


def test_what_is_not_recorded_is_left_out_and_told_why() -> None:
    left_out = Evaluation(panel_of(30)).run().left_out
    for name, what in (
        ("synthesize", "models analyse the answers, and one merges them; what they would write on 30 of 30"),
        ("rank", "models rank the answers of the others"),
        ("layers", "models answer again, having read the others"),
        ("debate", "models revise their answers"),
        ("cascade", "where nothing is agreed on, a model reads the answers"),
        ("vote", "where there is no majority, a model reads the answers"),
        ("route (chooser=Qwen2.5-72B-Instruct)", "a model chooses who is asked"),
    ):
        assert left_out[name].startswith(what)
        assert left_out[name].endswith("is not recorded, and a replay asks no model")
    (samples,) = (name for name in left_out if name.startswith("best member x"))
    assert left_out[samples] == "further samples of it are not recorded"


def test_an_arm_whose_fallback_answers_too_often_is_left_out() -> None:
    panel = panel_of(60)
    findings = Evaluation(panel, [strategy_arm("vote"), strategy_arm("synthesize")], unrecorded="fail").run()
    assert "would write on 50 of 50 questions" in findings.left_out["synthesize"]
    assert "is not recorded" in findings.left_out["vote"]


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
