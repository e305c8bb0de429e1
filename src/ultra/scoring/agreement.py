"""Scores of answers by how much they agree with the others.

After minimum Bayes risk decoding (Kumar and Byrne, 2004) and self-consistency (Wang et al., 2022).
"""

from __future__ import annotations

import re
from functools import cache
from itertools import chain, islice, pairwise
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Scorer", "agreement"]

# Scripts without spaces between words: Thai to Khmer, kana, Chinese characters. Each of their characters
# counts as a word, so that pairs of them do what words do in other scripts.
_UNSPACED: Final = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_MOST_WORDS: Final = 4096
"""How many words of an answer are compared, so that the time is bounded."""


class Scorer(Protocol):
    """A function that scores answers, such as `agreement`."""

    def __call__(self, question: str, answers: Mapping[str, str], /) -> Mapping[str, float]:
        """Return a score (0..1, higher is better) for each of `answers` that can be scored, by model name."""
        ...


def agreement(question: str, answers: Mapping[str, str]) -> dict[str, float]:
    """Return how much each answer agrees with the others (0..1), by model name; for one answer, nothing.

    The similarity of two answers is the F1 score of the words and pairs of words that they share (as in
    ROUGE, Lin, 2004). The score of an answer is the mean of its similarities to the others. Words of the
    question do not count, since all answers repeat them, unless an answer has no others. This takes about
    1 ms for three answers of a thousand words; at most 4,096 words of an answer are compared, in about
    3 ms.
    """
    if len(answers) < 2:  # noqa: PLR2004 - one answer has no other to agree with
        return {}
    known = frozenset(_words(question))
    # Short answers are often the very same.
    of_text = {answer: _features(_words(answer), known) for answer in dict.fromkeys(answers.values())}
    features = {name: of_text[answer] for name, answer in answers.items()}
    scores = dict.fromkeys(answers, 0.0)
    names = list(answers)
    for number, name in enumerate(names):
        for other in names[number + 1 :]:
            similarity = _f1(features[name], features[other])
            scores[name] += similarity
            scores[other] += similarity
    return {name: total / (len(names) - 1) for name, total in scores.items()}


def _words(text: str) -> list[str]:
    found = [match[0] for match in islice(_pattern().finditer(text.casefold()), _MOST_WORDS)]
    # An answer may have no words, such as a single emoji.
    return found or text[:_MOST_WORDS].split()


@cache
def _pattern() -> re.Pattern[str]:
    """Return the pattern of words in any script; compiling it takes 2 to 3 ms."""
    return re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")


def _features(words: list[str], known: frozenset[str]) -> frozenset[str | tuple[str, str]]:
    """Return the words and pairs of neighbouring words of an answer, without words of the question.

    Each counts once, so that a model that repeats itself does not agree more.
    """
    fresh = [word for word in words if word not in known] or words
    return frozenset(chain(fresh, pairwise(fresh)))


def _f1(one: frozenset[str | tuple[str, str]], other: frozenset[str | tuple[str, str]]) -> float:
    shared = len(one) if one is other else len(one & other)
    return 2 * shared / (len(one) + len(other)) if shared else 0.0
