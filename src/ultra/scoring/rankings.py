"""Rankings that models give of answers: the task, how a reply is read, and the Borda count over several.

The count is that of Borda (1781); answers that share a place have the mean of its scores.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, TypeVar

from msgspec import Struct

from ultra._support.lazy import lazy_pattern
from ultra.prompts.composing import Task
from ultra.scoring.judge import split_verdict

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

    T = TypeVar("T", bound=Hashable)

__all__ = ["RANK", "Ranking", "borda", "read_ranking"]

RANK: Final = Task(
    role="You rank candidate answers to the user's question.",
    rules=(
        "Judge by what is right, complete and clear, not by length or style. You may think aloud first. "
        "End with one line that has every label from the best to the worst, such as 'Ranking: B > A > C'. "
        "Write '=' between candidates that are equally good."
    ),
    request="Rank every candidate answer to the question:",
)
"""What a model is asked to do with the answers of others."""

_BETWEEN: Final = lazy_pattern(r"[\W_]*(?:(?:candidate|answer)[\W_]*)?", re.IGNORECASE)
_NUMBERED: Final = lazy_pattern(
    r"[\W_]{0,6}(?:(?:rank|place)\s)?(\d{1,3})(?:st|nd|rd|th)?[.):\s][\W_]{0,6}(?:(?:candidate|answer)[\W_]{0,4})?",
    re.IGNORECASE,
)
_SIGNS: Final = "\"'`*_.,[](){}!> \t"
"""What may stand behind the last label of a line."""
_FENCE: Final = lazy_pattern(r"\s*```\w*\s*$")
_FEWEST: Final = 0.5
"""The share of the labels that must be named; a ranking with fewer is dropped."""


class Ranking(Struct, frozen=True):
    """One model's ranking: the labels of each place, best first, and whether it had to be repaired."""

    places: tuple[tuple[str, ...], ...]
    repaired: bool = False


def read_ranking(reply: str, labels: Sequence[str], candidates: Iterable[str] = ()) -> Ranking | None:
    """Return the ranking in a reply; None: there is none that can be used.

    Read are a line such as ``B > A = C``, a JSON array of labels, a list with a number before each label,
    labels on lines of their own, and a label alone. The last line that is one counts. A label that is named
    twice keeps its first place, and
    labels that are not named share the last one; both is a repair. Where less than half of them are named,
    there is no ranking. One that stands in a candidate itself is a quotation, or the model was fooled. ::

        read_ranking("Ranking: B > A = C", "ABC").places == (("B",), ("A", "C"))
    """
    found = _read(split_verdict(reply), labels)
    if found is None or any(_read(text, labels) == found for text in candidates):
        return None
    return found


def borda(rankings: Iterable[tuple[Sequence[Sequence[T]], float]]) -> dict[T, float]:
    """Return the mean Borda score (0..1, the best is 1) of each of what was ranked.

    Each ranking has the places, best first, and its weight. What shares a place shares the mean score. A
    ranking of fewer than two says nothing. ::

        borda([((("b",), ("a", "c")), 1.0)]) == {"b": 1.0, "a": 0.25, "c": 0.25}
    """
    sums: dict[T, float] = {}
    weights: dict[T, float] = {}
    for places, weight in rankings:
        below = sum(map(len, places))
        most = below - 1
        if most < 1:
            continue
        for place in places:
            below -= len(place)
            score = (below + (len(place) - 1) / 2) / most
            for each in place:
                sums[each] = sums.get(each, 0.0) + weight * score
                weights[each] = weights.get(each, 0.0) + weight
    return {each: sums[each] / weights[each] for each in sums if weights[each] > 0}


def _read(text: str, labels: Sequence[str]) -> Ranking | None:
    label = re.compile(rf"(?<!\w)({'|'.join(map(re.escape, sorted(labels, key=len, reverse=True)))})(?!\w)")
    # Fences and brackets on lines of their own stand between no labels.
    lines = [line for line in text.splitlines() if line.strip(_SIGNS) and _FENCE().match(line) is None]
    for number in range(len(lines) - 1, -1, -1):
        places = _chain(lines[number], label)
        if len(places) == 1:
            places = [*_alone_above(lines, number, label), *places]
        if places:
            return _repaired(places, labels)
    return _repaired(_list(lines, label), labels)


def _alone_above(lines: Sequence[str], end: int, label: re.Pattern[str]) -> list[list[str]]:
    """Return the labels that stand alone on the lines right above this one: each is better than the next."""
    found: list[list[str]] = []
    for number in range(end - 1, -1, -1):
        places = _chain(lines[number], label)
        if len(places) != 1:
            break
        found.append(places[0])
    return found[::-1]


def _chain(line: str, label: re.Pattern[str]) -> list[list[str]]:
    """Return the places that one line tells; none where words stand between the labels."""
    places: list[list[str]] = []
    begin = end = 0
    for match in label.finditer(line):
        between = line[end : match.start()]
        if places and _BETWEEN().fullmatch(between) is None:
            places = []  # what is told before is no part of it: "A said so, but: B > A"
        if places and "=" in between:
            places[-1].append(match[1])
        else:
            places.append([match[1]])
        begin, end = match.start(), match.end()
    if line[end:].strip(_SIGNS):
        return []
    alone = len(places) == 1 and _BETWEEN().fullmatch(line[:begin]) is not None
    return places if len(places) > 1 or alone else []


def _list(lines: Sequence[str], label: re.Pattern[str]) -> list[list[str]]:
    """Return the places of a list with numbers, a line for each."""
    numbered: dict[int, list[str]] = {}
    for line in lines:
        number = _NUMBERED().match(line)
        match = None if number is None else label.match(line, number.end())
        if number is not None and match is not None:
            numbered.setdefault(int(number[1]), []).append(match[1])
    return [numbered[place] for place in sorted(numbered)]


def _repaired(places: Sequence[Sequence[str]], labels: Sequence[str]) -> Ranking | None:
    named: dict[str, None] = {}
    kept: list[tuple[str, ...]] = []
    for place in places:
        fresh = tuple(dict.fromkeys(label for label in place if label not in named))
        named |= dict.fromkeys(fresh)
        if fresh:
            kept.append(fresh)
    if not named or len(named) < _FEWEST * len(labels):
        return None
    missing = tuple(label for label in labels if label not in named)
    twice = sum(map(len, places)) > len(named)
    return Ranking((*kept, missing) if missing else tuple(kept), bool(missing) or twice)
