"""What a report says, as values: `msgspec.json.encode` makes the JSON report of them."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from ultra.evals.arms import ArmKind
from ultra.evals.statistics import Interval

__all__ = ["ArmFinding", "Comparison", "Findings", "PanelFinding", "TagFinding", "Verdict"]

Verdict = Literal["helps", "no evidence", "hurts"]
"""What an arm does beside another: the difference is above 0, may be 0, or is below."""


class Comparison(Struct, frozen=True, kw_only=True):
    """An arm beside a baseline: the difference of their accuracies over the same questions.

    `calls` and `cost` are those of the baseline for a question. `detectable` is the true difference that so
    many questions show with a power of 80 %. `p_value` is that of the difference alone. `verdict` allows for
    all arms that stand beside such a baseline, since several are judged at once (Holm, 1979).
    """

    baseline: str
    difference: Interval
    detectable: float
    p_value: float
    verdict: Verdict = "no evidence"
    calls: float
    cost: float | None = None


class ArmFinding(Struct, frozen=True, kw_only=True):
    """One arm: how good, how dear, how fast, and how it compares. Means are for a question.

    `confidence_auroc` is the chance that a right answer is surer than a wrong one. `by_votes` has, by how
    many of the first answers agree with the chosen one, how many questions there were and how many of these
    were right. `regret` is the accuracy of the oracle above this one's. `note` is what a reader must know.
    """

    name: str
    kind: ArmKind
    accuracy: Interval
    calls: float
    tokens: float
    cost: float | None
    p50: float | None
    p95: float | None
    degraded: float
    failed: float
    confidence_auroc: float | None = None
    by_votes: dict[str, tuple[int, float]] = {}
    calibration: tuple[tuple[float, int, float], ...] = ()
    regret: float | None = None
    versus_best: Comparison | None = None
    versus_equal_calls: Comparison | None = None
    versus_equal_money: Comparison | None = None
    note: str = ""

    @property
    def verdict(self) -> Verdict | None:
        """What the arm does beside the best member; one that samples of that beat has no evidence."""
        if self.versus_best is None:
            return None
        others = (self.versus_equal_calls, self.versus_equal_money)
        beaten = any(other is not None and other.verdict == "hurts" for other in others)
        return "no evidence" if self.versus_best.verdict == "helps" and beaten else self.versus_best.verdict


class PanelFinding(Struct, frozen=True, kw_only=True):
    """The members together. `ceiling` is 1 - `all_wrong`: no choice among their answers is better.

    `correlations` are those of errors, by pairs of names. `same_when_wrong` is how often two members that
    both err give the same answer. `gap` is the best member's accuracy above the mean of the others.
    """

    all_wrong: Interval
    ceiling: float
    mean_correlation: float | None
    effective_votes: float | None
    correlations: dict[str, dict[str, float | None]]
    same_when_wrong: float | None
    gap: float


class TagFinding(Struct, frozen=True, kw_only=True):
    """The questions of one tag: how many, and the accuracy of each arm on them."""

    tag: str
    questions: int
    accuracy: dict[str, Interval]


class Findings(Struct, frozen=True, kw_only=True):
    """A whole report.

    Attributes:
        source: where the answers come from.
        questions: how many questions were measured.
        grader: who said what is right.
        members: the names of the models.
        arms: all that was measured.
        panel: the members together.
        tags: by the tags of the questions, if they have any.
        left_out: what could not be measured, and why.
        notices: what else a reader must know.
        timed: whether seconds were measured.
        level: the level of the intervals.
        exact: whether scipy made them; without it they are approximations.
    """

    source: str
    questions: int
    grader: str
    members: tuple[str, ...]
    arms: tuple[ArmFinding, ...]
    panel: PanelFinding
    tags: tuple[TagFinding, ...] = ()
    left_out: dict[str, str] = {}
    notices: tuple[str, ...] = ()
    timed: bool = True
    level: float = 0.95
    exact: bool = True

    def arm(self, name: str) -> ArmFinding:
        """Return the arm of this name; raise `KeyError` if it was not measured."""
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise KeyError(name)
