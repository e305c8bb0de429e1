"""From outcomes to findings: accuracies with intervals, costs, comparisons, and the members together."""

from __future__ import annotations

from itertools import combinations
from statistics import fmean
from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec.structs import replace

from ultra.evals.findings import ArmFinding, Comparison, Findings, PanelFinding, TagFinding
from ultra.evals.statistics import (
    EXACT,
    Interval,
    auroc,
    correlation,
    detectable,
    effective_votes,
    exact_share,
    holm,
    mean_difference,
    p_value,
    percentile,
    wilson,
)
from ultra.scoring.final_answers import equal_answers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ultra.evals.arms import Arm, Outcome
    from ultra.evals.dataset import Question
    from ultra.evals.findings import Verdict
    from ultra.evals.panel import Panel

__all__ = ["Measured", "findings_of"]

_RIGHT: Final = 0.5
"""A score above this counts as right where right and wrong are told apart."""
_BINS: Final = 5
FEWEST_JUDGED: Final = 20
"""So few questions do not tell how much the pairs vary, so no verdict is given on fewer."""


class Measured(NamedTuple):
    """An arm with its outcomes, in the order of the questions."""

    arm: Arm
    outcomes: list[Outcome]
    note: str = ""

    @property
    def scores(self) -> list[float]:
        """The score of each question."""
        return [outcome.score for outcome in self.outcomes]

    @property
    def calls(self) -> float:
        """How many calls a question takes on average."""
        return fmean(outcome.calls for outcome in self.outcomes)

    @property
    def cost(self) -> float | None:
        """Dollars of a question on average; None: a price is not known."""
        costs = [outcome.cost for outcome in self.outcomes if outcome.cost is not None]
        return fmean(costs) if costs and len(costs) == len(self.outcomes) else None


def findings_of(
    *,
    panel: Panel,
    questions: Sequence[Question],
    grader: str,
    measured: Sequence[Measured],
    left_out: Mapping[str, str],
    notices: Sequence[str],
) -> Findings:
    """Return what these outcomes say."""
    by_kind = {each.arm.kind: each for each in measured if each.arm.kind in {"best", "oracle"}}
    members = [each for each in measured if each.arm.kind == "member"]
    samples = [each for each in measured if each.arm.kind == "samples"]
    comparing = _Comparing(by_kind["best"], samples)
    oracle = fmean(by_kind["oracle"].scores)
    arms = [_arm(each, comparing, oracle, timed=panel.header.timed) for each in measured]
    if len(questions) >= FEWEST_JUDGED:
        arms = _judged(arms)
    return Findings(
        source=panel.header.source or panel.dataset.name,
        questions=len(questions),
        grader=grader,
        members=tuple(each.arm.name for each in members),
        arms=tuple(sorted(arms, key=lambda arm: -arm.accuracy.value)),
        panel=_panel(members, questions),
        tags=_tags(measured, questions),
        left_out=dict(left_out),
        notices=tuple(notices),
        timed=panel.header.timed,
        exact=EXACT,
    )


class _Comparing(NamedTuple):
    """The baselines."""

    best: Measured
    samples: Sequence[Measured]

    def beside(self, arm: Measured, baseline: Measured | None) -> Comparison | None:
        """Return the arm beside a baseline, not judged yet; None: there is none."""
        if baseline is None or baseline is arm:
            return None
        pairs = [a - b for a, b in zip(arm.scores, baseline.scores, strict=True)]
        return Comparison(
            baseline=baseline.arm.name,
            difference=mean_difference(pairs),
            detectable=detectable(pairs),
            p_value=p_value(pairs),
            calls=baseline.calls,
            cost=baseline.cost,
        )

    def at_equal_calls(self, arm: Measured) -> Measured:
        """Return the best member with the number of samples whose calls are nearest to those of the arm."""
        return min([self.best, *self.samples], key=lambda each: abs(each.calls - arm.calls))

    def at_equal_money(self, arm: Measured) -> Measured | None:
        """Return the same by dollars; None: a price is not known."""
        cost = arm.cost
        priced = [(each, each.cost) for each in (self.best, *self.samples) if each.cost is not None]
        if cost is None or not priced:
            return None
        return min(priced, key=lambda pair: abs(pair[1] - cost))[0]


def _arm(each: Measured, comparing: _Comparing, oracle: float, *, timed: bool) -> ArmFinding:
    outcomes = each.outcomes
    n = len(outcomes)
    is_judged = each.arm.kind in {"strategy", "samples", "judge"}
    is_strategy = each.arm.kind == "strategy"
    sure = [outcome for outcome in outcomes if outcome.confidence is not None]
    confidences = [outcome.confidence or 0.0 for outcome in sure]
    return ArmFinding(
        name=each.arm.name,
        kind=each.arm.kind,
        accuracy=wilson(sum(each.scores), n),
        calls=each.calls,
        tokens=fmean(outcome.input_tokens + outcome.output_tokens for outcome in outcomes),
        cost=each.cost,
        p50=percentile([outcome.seconds for outcome in outcomes], 0.5) if timed else None,
        p95=percentile([outcome.seconds for outcome in outcomes], 0.95) if timed else None,
        degraded=fmean(outcome.degraded for outcome in outcomes),
        failed=fmean(outcome.text is None for outcome in outcomes),
        confidence_auroc=auroc(confidences, [outcome.score > _RIGHT for outcome in sure])
        if is_judged and len(set(confidences)) > 1
        else None,
        by_votes=_by_votes(outcomes) if is_judged else {},
        calibration=_calibration(sure) if is_judged else (),
        regret=oracle - fmean(each.scores),
        versus_best=comparing.beside(each, comparing.best) if is_judged else None,
        versus_equal_calls=comparing.beside(each, comparing.at_equal_calls(each))
        if is_strategy and comparing.samples
        else None,
        versus_equal_money=comparing.beside(each, comparing.at_equal_money(each))
        if is_strategy and comparing.samples
        else None,
        note=each.note,
    )


def _judged(arms: Sequence[ArmFinding]) -> list[ArmFinding]:
    """Return the arms with verdicts that allow for all which stand beside the same kind of baseline."""
    found = list(arms)
    for field in ("versus_best", "versus_equal_calls", "versus_equal_money"):
        given: list[Comparison | None] = [getattr(arm, field) for arm in found]
        pairs = [(place, each) for place, each in enumerate(given) if each is not None]
        for (place, each), is_there in zip(pairs, holm([each.p_value for _, each in pairs]), strict=True):
            if is_there:
                verdict: Verdict = "helps" if each.difference.value > 0 else "hurts"
                found[place] = replace(found[place], **{field: replace(each, verdict=verdict)})
    return found


def _by_votes(outcomes: Sequence[Outcome]) -> dict[str, tuple[int, float]]:
    found: dict[str, list[float]] = {}
    for outcome in outcomes:
        if outcome.votes is not None and outcome.voters is not None and outcome.voters > 1:
            found.setdefault(f"{outcome.votes} of {outcome.voters}", []).append(outcome.score)
    ordered = sorted(found.items(), key=lambda item: [int(number) for number in item[0].split(" of ")][::-1])
    return {votes: (len(scores), fmean(scores)) for votes, scores in ordered}


def _calibration(outcomes: Sequence[Outcome]) -> tuple[tuple[float, int, float], ...]:
    """Return, for each fifth of confidence, its mean, how many questions there are, and their accuracy."""
    bins: list[list[Outcome]] = [[] for _ in range(_BINS)]
    for outcome in outcomes:
        bins[min(_BINS - 1, int((outcome.confidence or 0.0) * _BINS))].append(outcome)
    return tuple(
        (fmean(each.confidence or 0.0 for each in found), len(found), fmean(each.score for each in found))
        for found in bins
        if found
    )


def _panel(members: Sequence[Measured], questions: Sequence[Question]) -> PanelFinding:
    wrong = {each.arm.name: [float(score <= _RIGHT) for score in each.scores] for each in members}
    n = len(questions)
    all_wrong = sum(all(row) for row in zip(*wrong.values(), strict=True))
    correlations: dict[str, dict[str, float | None]] = {name: {} for name in wrong}
    found = []
    for one, other in combinations(wrong, 2):
        value = correlation(wrong[one], wrong[other])
        correlations[one][other] = correlations[other][one] = value
        if value is not None:
            found.append(value)
    mean = fmean(found) if found else None
    accuracies = sorted((fmean(each.scores) for each in members), reverse=True)
    return PanelFinding(
        all_wrong=exact_share(all_wrong, n),
        ceiling=1 - all_wrong / n,
        mean_correlation=mean,
        effective_votes=None if mean is None else effective_votes(len(members), mean),
        correlations=correlations,
        same_when_wrong=_same_when_wrong(members, questions),
        gap=accuracies[0] - fmean(accuracies[1:]) if len(accuracies) > 1 else 0.0,
    )


def _same_when_wrong(members: Sequence[Measured], questions: Sequence[Question]) -> float | None:
    both = same = 0
    for index, question in enumerate(questions):
        texts = [each.outcomes[index].text or "" for each in members]
        finals = equal_answers(texts, question.text)
        wrong = [
            final
            for final, each in zip(finals, members, strict=True)
            if final is not None and each.outcomes[index].score <= _RIGHT
        ]
        both += len(wrong) * (len(wrong) - 1) // 2
        same += sum(one == other for one, other in combinations(wrong, 2))
    return same / both if both else None


def _tags(measured: Sequence[Measured], questions: Sequence[Question]) -> tuple[TagFinding, ...]:
    places: dict[str, list[int]] = {}
    for index, question in enumerate(questions):
        places.setdefault(question.tag, []).append(index)
    if set(places) <= {""}:
        return ()
    found = []
    for tag, indices in sorted(places.items()):
        accuracy: dict[str, Interval] = {
            each.arm.name: wilson(sum(each.outcomes[index].score for index in indices), len(indices))
            for each in measured
        }
        found.append(TagFinding(tag=tag or "(none)", questions=len(indices), accuracy=accuracy))
    return tuple(found)
