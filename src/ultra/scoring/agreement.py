"""Scores of answers by how much they agree with the others.

The vote over final answers is self-consistency (Wang et al., 2022); the similarity of texts is after minimum
Bayes risk decoding (Kumar and Byrne, 2004).
"""

from __future__ import annotations

from collections import Counter
from itertools import chain, islice, pairwise
from typing import TYPE_CHECKING, Final, Protocol

from msgspec import Struct

from ultra._support.cooperative import run_at_once
from ultra._support.lazy import lazy_pattern
from ultra.scoring.final_answers import names_of_equals, read_answer
from ultra.scoring.weight_sums import rounded

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from ultra.scoring.final_answers import FinalAnswer

__all__ = ["Agreed", "Scorer", "agreed_at_once", "agreement", "count_in_pieces"]

# Scripts without spaces between words: Thai to Khmer, kana, Chinese characters. Each of their characters
# counts as a word, so that pairs of them do what words do in other scripts.
_UNSPACED: Final = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_WORD: Final = lazy_pattern(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")  # in any script
_MOST_WORDS: Final = 4096
"""How many words of an answer are compared, at its beginning."""
_ALL_WORDS: Final = 4_096
"""How many words of all answers are compared, so that the time is bounded."""
_LEAST_WORDS: Final = 8
_TIE: Final = 0.01
"""What full similarity, or all weight, is to the score of an answer with no equals: less than a vote."""
_PIECE: Final = 32
"""So many answers are read in one piece of the work."""
_PIECE_OF_WORDS: Final = 2_000
"""So many words are compared in one piece."""
_PIECE_OF_NAMES: Final = 500
"""So many sums are made in one piece, one for each answer."""
_FEWEST_READ: Final = 0.5
"""The share of the answers from which final answers must have been read for these to be counted."""


class Scorer(Protocol):
    """A function that scores answers, such as `agreement`.

    One that has a parameter ``weights`` is also given the weights of the models, by the same names.
    """

    def __call__(self, question: str, answers: Mapping[str, str], /) -> Mapping[str, float]:
        """Return a score (0..1, higher is better) for each of `answers` that can be scored, by model name."""
        ...


class Agreed(Struct, frozen=True):
    """How answers agree, by their names.

    Attributes:
        scores: 0..1; none for a single answer.
        finals: what stands for the final answer of each, the same for equal ones; None where none was found.
        votes: the share (0..1) of all weight that stands for the same final answer, that of the answer itself
            included; without final answers, of how similar texts are.
        counted: whether final answers were counted, not the similarity of texts.
        unanimous: whether all answers mark the same final answer.
    """

    scores: dict[str, float]
    finals: dict[str, str | None]
    votes: dict[str, float]
    counted: bool
    unanimous: bool


def agreement(
    question: str, answers: Mapping[str, str], weights: Mapping[str, float] | None = None
) -> dict[str, float]:
    """Return how much each answer agrees with the others (0..1), by model name; for one answer, nothing.

    The score of an answer is the share of the others, by weight, whose final answer is the same (see
    `ultra.scoring.final_answers.final_answer`). Between final answers that nobody else has, weight breaks
    the tie, or the similarity of texts where the weights are equal, by at most a hundredth. Where fewer than
    half of the answers have a final answer, the similarity is the score.

    The similarity of a text to the others is the F1 score of the words and pairs of words that it shares
    with them (as in ROUGE, Lin, 2004), summed over the others by weight. Words of the question do not
    count, unless they are single letters or numbers, or an answer has no others. At most 4,096 words are
    compared, equally many of each answer. Two hundred answers of a thousand words take about 10 ms; with
    more answers the time grows linearly, and runs let others run in between. ::

        agreement("2+2?", {"a": "The answer is 4.", "b": "4", "c": "5"}) == {"a": 0.5, "b": 0.5, "c": 0.0}
    """
    return agreed_at_once(question, answers, weights).scores


def agreed_at_once(
    question: str,
    answers: Mapping[str, str],
    weights: Mapping[str, float] | None = None,
    read: dict[str, FinalAnswer | None] | None = None,
) -> Agreed:
    """Return how answers agree, without letting others run in between; `read` as in `count_in_pieces`."""
    return run_at_once(count_in_pieces(question, answers, weights, read=read))


def count_in_pieces(
    question: str,
    answers: Mapping[str, str],
    weights: Mapping[str, float] | None = None,
    *,
    by_text: bool = False,
    read: dict[str, FinalAnswer | None] | None = None,
) -> Generator[None, None, Agreed]:
    """Do the work of `agreement`, and yield whenever a few milliseconds of it are done.

    With `by_text`, final answers are not counted, and the similarity of texts is the score. `read` keeps the
    final answer of each text, for a caller that compares the same texts again.
    """
    weighed = _weighed(answers, weights)
    read = {} if read is None else read
    for number, text in enumerate(dict.fromkeys(answers.values()), start=1):  # they are often the very same
        if text not in read:
            read[text] = read_answer(text)
        if number % _PIECE == 0:
            yield
    found = [read[text] for text in answers.values()]
    finals = dict(zip(answers, names_of_equals(found, question), strict=True))
    named = set(finals.values())
    unanimous = (
        len(named) == 1 and None not in named and all(each is not None and each.marked for each in found)
    )
    counted = not by_text and sum(final is not None for final in finals.values()) >= _FEWEST_READ * len(
        finals
    )
    if len(answers) < 2:  # noqa: PLR2004 - one answer has no other to agree with
        return Agreed({}, finals, dict.fromkeys(answers, 1.0), counted, unanimous)
    total = sum(weighed.values())
    behind, number_of = _groups(finals, weighed)
    if counted and not _has_ties(finals, number_of, weighed):
        similar = {}
    else:
        similar = yield from _similarities(question, answers, weighed)
    scores, votes = {}, {}
    for number, (name, weight) in enumerate(weighed.items(), start=1):
        final, others = finals[name], total - weight
        if not counted:
            scores[name] = similar[name]
            votes[name] = (similar[name] * others + weight) / total
        elif final is not None and number_of[final] > 1:
            same = behind[final] - weight
            share = same / others if others > 0 else (number_of[final] - 1) / (len(answers) - 1)
            scores[name], votes[name] = share, rounded(behind[final] / total)
        else:
            scores[name] = _TIE * (similar[name] if similar else weight / total)
            votes[name] = rounded(weight / total) if final is not None else 0.0
        scores[name] = min(1.0, max(0.0, round(scores[name], 9)))
        if number % _PIECE_OF_NAMES == 0:
            yield
    return Agreed(scores, finals, votes, counted, unanimous)


def _weighed(answers: Mapping[str, str], weights: Mapping[str, float] | None) -> dict[str, float]:
    """Return the weight of each answer; where all are 0, or none are told, every answer counts the same."""
    given = {name: max(0.0, weights.get(name, 1.0)) if weights else 1.0 for name in answers}
    return given if any(given.values()) else dict.fromkeys(answers, 1.0)


def _groups(
    finals: Mapping[str, str | None], weighed: Mapping[str, float]
) -> tuple[dict[str, float], dict[str, int]]:
    """Return, for each final answer, the weight behind it, and how many gave it."""
    behind: dict[str, float] = {}
    number_of: dict[str, int] = {}
    for name, final in finals.items():
        if final is not None:
            behind[final] = behind.get(final, 0.0) + weighed[name]
            number_of[final] = number_of.get(final, 0) + 1
    return behind, number_of


def _has_ties(
    finals: Mapping[str, str | None], number_of: Mapping[str, int], weighed: Mapping[str, float]
) -> bool:
    """Return whether the similarity of texts has to order answers that have no equals.

    Where weights differ, these do it.
    """
    alone = [name for name, final in finals.items() if final is None or number_of[final] == 1]
    return bool(alone) and len({weighed[name] for name in alone}) == 1


# --- similarity of texts --------------------------------------------------------------------------------


def _similarities(
    question: str, answers: Mapping[str, str], weighed: Mapping[str, float]
) -> Generator[None, None, dict[str, float]]:
    """Return how similar each text is to the others, in time that is linear in the words.

    Counting in how many texts a feature stands says at once how much a text shares with all the others.
    """
    most = min(_MOST_WORDS, max(_LEAST_WORDS, _ALL_WORDS // max(1, len(set(answers.values())))))
    known = frozenset(word for word in _words(question, _MOST_WORDS) if len(word) > 1 and not word.isdigit())
    of_text: dict[str, frozenset[str]] = {}
    done = 0
    for text in dict.fromkeys(answers.values()):
        words = _words(text, most)
        of_text[text] = _features(words, known)
        done += len(words) + _LEAST_WORDS
        if done > _PIECE_OF_WORDS:
            done = 0
            yield
    shared_of = yield from _shared(answers, of_text, weighed)
    all_sizes = sum(weighed[name] * len(of_text[text]) for name, text in answers.items())
    total = sum(weighed.values())
    scores = {}
    for number, (name, text) in enumerate(answers.items(), start=1):
        if number % _PIECE_OF_NAMES == 0:
            yield
        size, weight = len(of_text[text]), weighed[name]
        shared = shared_of[text] - weight * size
        sizes = (total - weight) * size + all_sizes - weight * size
        scores[name] = min(1.0, max(0.0, 2 * shared / sizes)) if sizes > 0 and shared > 0 else 0.0
    return scores


def _shared(
    answers: Mapping[str, str], of_text: Mapping[str, frozenset[str]], weighed: Mapping[str, float]
) -> Generator[None, None, dict[str, float]]:
    """Return how many features each text shares with all texts, itself included, by weight."""
    done = 0
    weight_of: dict[str, float] = dict.fromkeys(of_text, 0.0)
    for name, text in answers.items():
        weight_of[text] += weighed[name]
    stands_in: Counter[str] = Counter()
    for text, features in of_text.items():
        weight = weight_of[text]
        if weight == 1.0:
            stands_in.update(features)
        else:
            for feature in features:
                stands_in[feature] += weight  # type: ignore[assignment] # weights are sums of numbers
        done += len(features)
        if done > 2 * _PIECE_OF_WORDS:
            done = 0
            yield
    shared_of: dict[str, float] = {}
    for text, features in of_text.items():
        shared_of[text] = sum(map(stands_in.__getitem__, features))
        done += len(features)
        if done > 2 * _PIECE_OF_WORDS:
            done = 0
            yield
    return shared_of


def _words(text: str, most: int) -> list[str]:
    # So many characters have more words than are compared, in any script that has spaces.
    found = _WORD().findall(text[: most * 16].casefold())[:most]
    # An answer may have no words, such as a single emoji.
    return found or text[:most].split()


def _features(words: list[str], known: frozenset[str]) -> frozenset[str]:
    """Return the words and pairs of neighbouring words of an answer, without words of the question.

    Each counts once, so that a model that repeats itself does not agree more.
    """
    fresh = [word for word in words if word not in known] or words
    return frozenset(chain(fresh, islice(map(" ".join, pairwise(fresh)), _MOST_WORDS)))
