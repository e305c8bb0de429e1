"""The grades of a judge, a model that grades the answers of others: its task, and how its reply is read.

After Zheng et al., "Judging LLM-as-a-Judge" (2023). The coordinator asks the judge
(`ultra.actors.coordinator.grading`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from ultra._support.lazy import lazy_pattern
from ultra.prompts.composing import Task

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["JUDGE", "parse_grades"]

_HIGHEST_GRADE: Final = 10
_FEWEST: Final = 0.5
_LONGEST: Final = 20_000  # characters at the end of a reply that are read

_ANNOUNCES: Final = lazy_pattern(
    r"^[^\w\n]{0,8}(?:my\s|the\s)?(?:final|overall)?\s?(?:grades?|verdict|scores?|ratings?)[^\w\n]{0,4}(?::|$)[^\w\n]{0,4}$"
    r"|^[^\w\n]{0,8}(?:my\s|the\s)?final\s(?:grades?|verdict|scores?|ratings?|answer)\b[^\w\n]{0,8}:?",
    re.IGNORECASE | re.MULTILINE,
)

JUDGE: Final = Task(
    role="You grade candidate answers to the user's question.",
    rules=(
        "Grade each candidate from 0 (wrong or useless) to 10 (right, complete and clear). "
        "Write one line for each candidate, such as 'A: 7', and nothing else."
    ),
    request="Grade every candidate answer to the question:",
)
"""What the judge model is asked to do."""

# A grade follows its label, at the beginning of a line or of an item of a list or a JSON object. A number
# with a minus, of a range, of a percentage or of another scale is no grade.
_BEFORE_LABEL: Final = r"(?:^|[,;{])[^\w\n]{0,8}(?:candidate\W{1,4})?"
_BEFORE_GRADE: Final = r"\b[^\w\n]{0,8}(?<![-\u2212\u2013+.])"
_GRADE: Final = r"(\d+(?:\.\d+)?)(?:\s*(?:/|out of)\s*10)?"
_AFTER_GRADE: Final = r"(?=[^\w\n]*$|\*{0,2}(?:\s*[,;(}|]|\s+[-\u2013\u2014]\s|\.\s))(?![^\w\n]*[\d%])"


def parse_grades(reply: str, labels: Mapping[str, str], candidates: Iterable[str] = ()) -> dict[str, float]:
    r"""Return the grades in the judge's reply as scores (0..1), by the names in `labels`.

    `labels` has the name behind each label. Lines such as ``A: 7``, ``**Candidate B** - 8.5/10 (clear)`` and
    ``C = 3 out of 10`` are read, lists such as ``A: 7, B: 9``, and JSON objects of labels and numbers. A
    label without a number of 0..10, or with two different ones, has no score; where fewer than half of them
    have one, none has: the few would win whatever they are. What the judge thinks aloud
    before it announces its grades does not count. A verdict that stands in one of the `candidates` themselves
    is a quotation, or the judge was fooled: then there are no grades. ::

        parse_grades("A: 7\nB: 9/10", {"A": "llama", "B": "gemini"}) == {"llama": 0.7, "gemini": 0.9}
    """
    grades = _grades(split_verdict(reply), labels)
    if len(grades) < _FEWEST * len(labels):
        return {}
    forged = any(_grades(text[-_LONGEST:], labels) == grades for text in candidates) if grades else False
    return {} if forged else grades


def _grades(reply: str, labels: Mapping[str, str]) -> dict[str, float]:
    if not labels:
        return {}
    # One pattern for all labels: each candidate is read by it, too, so one each would cost their square.
    names = {label.casefold(): name for label, name in labels.items()}
    longest_first = sorted(labels, key=len, reverse=True)
    graded = re.compile(
        f"{_BEFORE_LABEL}({'|'.join(map(re.escape, longest_first))}){_BEFORE_GRADE}{_GRADE}{_AFTER_GRADE}",
        re.IGNORECASE | re.MULTILINE,
    )
    found: dict[str, set[float]] = {name: set() for name in names.values()}
    for match in graded.finditer(reply):
        found[names[match[1].casefold()]].add(float(match[2]))
    return {
        name: grades.pop() / _HIGHEST_GRADE
        for name, grades in found.items()
        if len(grades) == 1 and max(grades) <= _HIGHEST_GRADE
    }


def split_verdict(reply: str) -> str:
    """Return the part of a judge's reply that has its verdict.

    Where it thinks aloud, that is what follows the last line that announces the verdict.
    """
    reply = reply[-_LONGEST:]
    ends = [match.end() for match in _ANNOUNCES().finditer(reply)]
    return reply[ends[-1] :] if ends else reply
