"""Agreement between answers, and the grades of a judge."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultra.prompts import Candidate, compose
from ultra.quality import JUDGE, agreement, parse_grades

LABELS = {"A": "llama", "B": "gemini"}


def test_the_answer_that_stands_alone_scores_lowest() -> None:
    scores = agreement(
        "What is the capital of France?",
        {"one": "It is Paris.", "two": "Paris, of course.", "three": "No, Berlin!"},
    )
    assert scores["three"] < scores["one"]
    assert scores["three"] < scores["two"]


def test_repeating_the_question_is_no_agreement() -> None:
    scores = agreement(
        "What is the capital of France?",
        {"one": "The capital of France is Paris.", "two": "The capital of France is Lyon."},
    )
    assert scores == {"one": 0.0, "two": 0.0}


def test_equal_answers_agree_fully_and_one_alone_gets_no_score() -> None:
    assert agreement("Q", {"one": "Yes.", "two": "yes"}) == {"one": 1.0, "two": 1.0}
    assert agreement("Q", {"one": "Yes."}) == {}


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=200), max_size=5), st.text(max_size=50))
def test_scores_lie_between_0_and_1_and_do_not_depend_on_the_order(
    answers: dict[str, str], question: str
) -> None:
    scores = agreement(question, answers)
    turned = agreement(question, dict(reversed(answers.items())))
    assert all(0 <= score <= 1 for score in scores.values())
    assert scores == pytest.approx(turned)


@pytest.mark.parametrize(
    "reply",
    [
        "A: 7\nB: 9",
        "**Candidate A**: 7/10\n**Candidate B**: 9/10",
        "a = 7 out of 10\nb = 9 out of 10",
        "Grades:\n- A: 7.0\n- B: 9.0\n",
    ],
)
def test_the_usual_ways_to_write_grades_are_read(reply: str) -> None:
    assert parse_grades(reply, LABELS) == {"llama": 0.7, "gemini": 0.9}


@pytest.mark.parametrize(
    ("reply", "scores"),
    [
        ("", {}),
        ("Both are good.", {}),
        ("A: 11\nB: 3", {"gemini": 0.3}),
        ("A: 3\nA: 4", {}),
        ("A: about 7 reasons to like it", {}),
        ("C: 5", {}),
    ],
)
def test_what_is_no_clear_grade_gives_no_score(reply: str, scores: dict[str, float]) -> None:
    assert parse_grades(reply, LABELS) == scores


@given(st.text(max_size=300))
def test_any_reply_gives_scores_between_0_and_1_or_none(reply: str) -> None:
    assert all(0 <= score <= 1 for score in parse_grades(reply, LABELS).values())


def test_the_judge_reads_fenced_candidates_under_labels() -> None:
    prompt = compose(
        "judge",
        task=JUDGE,
        question="Q?",
        candidates=[Candidate("llama", "yes"), Candidate("gemini", "no")],
        asked_model="chatgpt",
        secret=b"s" * 32,
    )
    assert set(prompt.labels.values()) == {"llama", "gemini"}
    assert "llama" not in prompt.user + prompt.system
    grades = "\n".join(f"{label}: 10" for label in prompt.labels)
    assert parse_grades(grades, prompt.labels) == {"llama": 1.0, "gemini": 1.0}
