"""Who agrees with whom: the agreement of each two answers."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from msgspec import Struct

from ultra.scoring.agreement import count_in_pieces

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from ultra.scoring.final_answers import FinalAnswer

__all__ = ["AgreementMatrix", "compare_in_pieces"]


class AgreementMatrix(Struct, frozen=True):
    """The agreement of each two answers, by their names.

    Attributes:
        finals: what stands for the final answer of each, the same for equal ones; None where none was found.
        pairs: 0..1 for each two: 1 for equal final answers, else how similar the texts are, below 1.
    """

    finals: dict[str, str | None]
    pairs: dict[str, dict[str, float]]


def compare_in_pieces(question: str, answers: Mapping[str, str]) -> Generator[None, None, AgreementMatrix]:
    """Compare each two answers, and yield whenever a few milliseconds of the work are done.

    The work grows with the square of the number of answers: bound that first.
    """
    read: dict[str, FinalAnswer | None] = {}
    finals = (yield from count_in_pieces(question, answers, read=read)).finals
    pairs: dict[str, dict[str, float]] = {name: {name: 1.0} for name in answers}
    for one, other in combinations(answers, 2):
        if finals[one] is not None and finals[one] == finals[other]:
            score = 1.0
        else:
            two = {one: answers[one], other: answers[other]}
            similar = (yield from count_in_pieces(question, two, by_text=True, read=read)).scores[one]
            score = similar if answers[one] == answers[other] else min(similar, 0.99)
        pairs[one][other] = pairs[other][one] = score
        yield
    return AgreementMatrix(finals, pairs)
