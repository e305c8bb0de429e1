"""Scores an answer by how much the others say the same.

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

# Scripts that put no spaces between words: Thai to Khmer, kana, Chinese characters. Each of their
# characters counts as a word, so that the pairs do what words do elsewhere.
_UNSPACED: Final = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_MOST_WORDS: Final = 4096
"""Words of an answer that are compared; so the work is bounded, whatever a model writes."""


class Scorer(Protocol):
    """Scores answers."""

    def __call__(self, question: str, answers: Mapping[str, str], /) -> Mapping[str, float]:
        """A score of 0..1 for each of `answers` (by model name) that can be scored; higher is better."""
        ...


def agreement(question: str, answers: Mapping[str, str]) -> dict[str, float]:
    """Return how much each answer says what the others say, 0..1; nothing for one that stands alone.

    The similarity of two answers is the F1 score of the words and pairs of words that they share (as in
    ROUGE, Lin, 2004), and an answer's score is the mean of its similarities. Words of the question do
    not count, unless an answer has no others: everybody repeats them. Takes about 1 ms for three
    answers of a thousand words; of longer ones, the first 4,096 words are compared, in about 3 ms.
    """
    if len(answers) < 2:  # noqa: PLR2004 - one answer has nobody to agree with
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
    # An answer may be a mere sign, such as an emoji.
    return found or text[:_MOST_WORDS].split()


@cache
def _pattern() -> re.Pattern[str]:
    """Return what finds the words of any script; to make it takes 2 to 3 ms."""
    return re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")


def _features(words: list[str], known: frozenset[str]) -> frozenset[str | tuple[str, str]]:
    """The words and the pairs of neighbours of an answer, without those that only repeat the question.

    Each counts once: a model that is caught in a loop agrees no more with the others by going on.
    """
    fresh = [word for word in words if word not in known] or words
    return frozenset(chain(fresh, pairwise(fresh)))


def _f1(one: frozenset[str | tuple[str, str]], other: frozenset[str | tuple[str, str]]) -> float:
    shared = len(one) if one is other else len(one & other)
    return 2 * shared / (len(one) + len(other)) if shared else 0.0
