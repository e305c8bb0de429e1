"""Agreement between answers, and the grades of a judge."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultra.prompts.composing import Candidate, compose
from ultra.scoring.agreement import agreement
from ultra.scoring.judge import JUDGE, parse_grades

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


def test_scripts_without_spaces_are_compared_by_their_characters() -> None:
    scores = agreement(
        "法国的首都在哪里",
        {"one": "巴黎是法国的首都。", "two": "法国的首都是巴黎。", "three": "里昂。"},
    )

    assert scores["one"] > 0.3
    assert scores["three"] < scores["one"]


def test_answers_of_signs_alone_agree_when_they_are_the_same() -> None:
    assert agreement("Up or down?", {"one": "👍", "two": " 👍"}) == {"one": 1.0, "two": 1.0}
    assert agreement("Up or down?", {"one": "👍", "two": "👎"}) == {"one": 0.0, "two": 0.0}


def test_only_the_beginning_of_a_huge_answer_is_compared() -> None:
    same = "word " * 5000

    assert agreement("Q", {"one": same + "tail " * 100_000, "two": same}) == {"one": 1.0, "two": 1.0}


@given(st.text(st.characters(max_codepoint=0x7F), max_size=200))
def test_a_sign_beyond_ascii_changes_no_word(text: str) -> None:
    answer = f"word {text}"

    assert agreement("Q", {"one": answer, "two": f"{answer} …"}) == {"one": 1.0, "two": 1.0}


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
        "A: 7, B: 9",
        '{"A": 7, "B": 9}',
        '```json\n{\n  "A": 7,\n  "B": 9\n}\n```',
        "| A | 7 |\n| B | 9 |",
        "A: 7 (misses a point)\nB: 9 - right and clear",
        "Candidate A: 7/10. It is brief.\nCandidate B: **9**, since it is right.",
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
        ("A: -5\nB: 3", {"gemini": 0.3}),
        ("A: 7-8\nB: 7 - 8", {}),
        ("A: 7/100\nB: 7 out of 100", {}),
        ("A: 70%\nB: 7 %", {}),
        ("A: 7, 8 at best\nB: .5", {}),
        ("A: 75\nB: 7.5.1", {}),
        ("A 7 point scale is used.\nGrade B 9", {}),
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
