"""Chosen or learned on one half of the questions, and judged on the other: the even and the odd ones."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING

from ultra.evals.analysis import Measured

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ultra.evals.arms import Arm, Outcome
    from ultra.evals.dataset import Question
    from ultra.evals.outcomes import Outcomes

__all__ = ["best_members", "crossed"]


def best_members(members: Sequence[Measured]) -> tuple[str, str]:
    """Return the best member for the even questions, chosen on the odd ones, and the other way round."""
    if len(members[0].outcomes) == 1:
        return members[0].arm.name, members[0].arm.name
    chosen = []
    for half in (0, 1):
        scores = {each.arm.name: fmean(o.score for o in each.outcomes[1 - half :: 2]) for each in members}
        chosen.append(max(scores, key=scores.__getitem__))
    return chosen[0], chosen[1]


def crossed(
    outcomes: Outcomes, arms: tuple[Arm, Arm], questions: Sequence[Question], template: Arm
) -> Measured | None:
    """Return the outcomes of one arm on the even questions and of the other on the odd ones.

    `template` is what reports call it. None: not all can be had.
    """
    found: list[list[Outcome]] = []
    for half, arm in enumerate(arms):
        part = questions[half::2]
        if not (outcomes.fill([arm], part) and outcomes.have(arm, part)):
            return None
        found.append(outcomes.scored(arm, part))
    return Measured(template, [found[at % 2][at // 2] for at in range(len(questions))])
