"""How good answers are, as far as that can be told without knowing the truth: agreement, or a judge.

Agreement scores an answer by how much the others say the same (minimum Bayes risk decoding, Kumar and
Byrne, 2004; self-consistency, Wang et al., 2022). The judge is another model, which grades the
candidates behind the same fences and labels as every reader does (Zheng et al., "Judging
LLM-as-a-Judge", 2023); this module words its task and reads its reply, and asks nobody.
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Protocol

from ultra.prompts import Task

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["JUDGE", "Scorer", "agreement", "parse_grades"]

_WORDS: Final = re.compile(r"\w+")
_MOST_WORDS: Final = 4096
"""Words of an answer that are compared; so the work is bounded, whatever a model writes."""
_HIGHEST_GRADE: Final = 10

JUDGE: Final = Task(
    role="You grade candidate answers to the user's question.",
    rules=(
        "Grade each candidate from 0 (wrong or useless) to 10 (right, complete and clear). "
        "Write one line for each candidate, such as 'A: 7', and nothing else."
    ),
    request="Grade every candidate answer to the question:",
)
"""What the judge model is asked to do."""


class Scorer(Protocol):
    """Scores answers."""

    def __call__(self, question: str, answers: Mapping[str, str]) -> Mapping[str, float]:
        """A score of 0..1 for each of `answers` (by model name) that can be scored; higher is better."""
        ...


def agreement(question: str, answers: Mapping[str, str]) -> dict[str, float]:
    """How much each answer says what the others say, 0..1; nothing for an answer that stands alone.

    The similarity of two answers is the F1 score of the words and pairs of words that they share (as in
    ROUGE, Lin, 2004), and an answer's score is the mean of its similarities. Words of the question do
    not count, unless an answer has no others: everybody repeats them. Takes about 1 ms for three
    answers of a thousand words.
    """
    if len(answers) < 2:  # noqa: PLR2004 - one answer has nobody to agree with
        return {}
    known = frozenset(_words(question))
    features = {name: _features(_words(answer), known) for name, answer in answers.items()}
    scores = dict.fromkeys(answers, 0.0)
    names = list(answers)
    for number, name in enumerate(names):
        for other in names[number + 1 :]:
            similarity = _f1(features[name], features[other])
            scores[name] += similarity
            scores[other] += similarity
    return {name: total / (len(names) - 1) for name, total in scores.items()}


def _words(text: str) -> list[str]:
    words = []
    for match in _WORDS.finditer(text.casefold()):
        words.append(match[0])
        if len(words) == _MOST_WORDS:
            break
    return words


def _features(words: list[str], known: frozenset[str]) -> Counter[tuple[str, ...]]:
    """The words and the pairs of neighbours of an answer, without those that only repeat the question."""
    fresh = [word for word in words if word not in known] or words
    return Counter([*((word,) for word in fresh), *pairwise(fresh)])


def _f1(one: Counter[tuple[str, ...]], other: Counter[tuple[str, ...]]) -> float:
    shared = sum((one & other).values())
    return 2 * shared / (one.total() + other.total()) if shared else 0.0


def parse_grades(reply: str, labels: Mapping[str, str]) -> dict[str, float]:
    """The judge's grades as scores of 0..1, by model name; `labels` says who stands behind each label.

    Reads lines such as ``A: 7``, ``**Candidate B** - 8.5/10`` and ``C = 3 out of 10``. A label without a
    number of 0..10, or with two different ones, gets no score: nothing is guessed.
    """
    grades: dict[str, set[float]] = {}
    grade = r"(\d+(?:\.\d+)?)\s*(?:(?:/|out of)\s*10\b)?"
    for label, name in labels.items():
        line = re.compile(
            rf"^\W*(?:candidate\W+)?{re.escape(label)}\b[^\w\n]*{grade}\W*$",
            re.IGNORECASE | re.MULTILINE,
        )
        grades[name] = {float(match[1]) for match in line.finditer(reply)}
    return {
        name: found.pop() / _HIGHEST_GRADE
        for name, found in grades.items()
        if len(found) == 1 and max(found) <= _HIGHEST_GRADE
    }
