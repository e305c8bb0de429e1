"""The tables of a report, which the terminal, Markdown and HTML show alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

if TYPE_CHECKING:
    from ultra.evals.findings import ArmFinding, Comparison, Findings
    from ultra.evals.statistics import Interval

__all__ = ["Table", "tables_of"]

_NONE: Final = "-"
_LARGE: Final = 100.0
_HELPED: Final = 10.0


class Table(Struct, frozen=True):
    """A table: the first column is text, the others are right-aligned; `remark` stands below it."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    remark: str = ""


def tables_of(findings: Findings) -> list[Table]:
    """Return all tables of a report, in their order."""
    makers = (_accuracy, _comparisons, _cost, _members, _votes, _tags)
    return [table for table in (make(findings) for make in makers) if table.rows]


def _accuracy(findings: Findings) -> Table:
    rows = [
        (
            arm.name,
            _percent(arm.accuracy.value),
            _range(arm.accuracy),
            _signed(None if arm.versus_best is None else arm.versus_best.difference),
            arm.verdict or _NONE,
            _money(arm.cost),
        )
        for arm in findings.arms
    ]
    judged = sum(arm.versus_best is not None for arm in findings.arms)
    needed = [arm.versus_best.detectable for arm in findings.arms if arm.versus_best is not None]
    shown = (
        f"With n = {findings.questions}, differences from the best member show with a power of 80 % from "
        f"{min(needed) * 100:.1f} to {max(needed) * 100:.1f} points on, by arm (next table). "
        if needed
        else ""
    )
    return Table(
        "Accuracy",
        ("arm", "right %", "95 % interval", "points over the best member", "verdict", "$ per 1,000"),
        tuple(rows),
        f"{shown}A verdict allows for {max(1, judged)} arms judged at once (Holm, 1979), so it can be "
        "'no evidence' where the 95 % interval excludes 0 by little. An arm that samples of the best "
        "member beat at equal calls or equal money has no evidence. Failed answers count as wrong.",
    )


def _comparisons(findings: Findings) -> Table:
    rows = []
    for arm in findings.arms:
        for comparison in (arm.versus_best, arm.versus_equal_calls, arm.versus_equal_money):
            if comparison is None:
                continue
            how = {
                id(arm.versus_equal_calls): f"equal calls: {comparison.calls:.2f} to {arm.calls:.2f}",
                id(arm.versus_equal_money): f"equal money: {_money(comparison.cost)} to {_money(arm.cost)}",
            }.get(id(comparison), "best single")
            rows.append(_comparison(arm, comparison, how))
    return Table(
        "Beside the baselines, by paired bootstrap over the same questions",
        ("arm", "baseline", "at", "points", "95 % interval", "detectable", "verdict"),
        tuple(rows),
        "Of several samples of the best member, those are taken that are nearest in calls and in dollars for "
        "1,000 questions: theirs to those of the arm. 'Detectable' is the true difference, in points, that "
        "this many questions show with a power of 80 %: "
        "smaller ones may be there and go unseen.",
    )


def _comparison(arm: ArmFinding, comparison: Comparison, how: str) -> tuple[str, ...]:
    return (
        arm.name,
        comparison.baseline,
        how,
        f"{comparison.difference.value * 100:+.1f}",
        _points(comparison.difference),
        f"{comparison.detectable * 100:.1f}",
        comparison.verdict,
    )


def _cost(findings: Findings) -> Table:
    rows = [
        (
            arm.name,
            f"{arm.calls:.2f}",
            f"{arm.tokens:,.0f}",
            _money(arm.cost),
            _NONE if arm.p50 is None else f"{arm.p50:.1f}",
            _NONE if arm.p95 is None else f"{arm.p95:.1f}",
            _percent(arm.degraded),
            _percent(arm.failed),
            _NONE if arm.confidence_auroc is None else f"{arm.confidence_auroc:.2f}",
            _NONE if arm.regret is None else f"{arm.regret * 100:.1f}",
        )
        for arm in findings.arms
    ]
    timed = "" if findings.timed else " Nobody measured the seconds of these answers."
    return Table(
        "Cost, time and confidence, for a question",
        (
            "arm",
            "calls",
            "tokens",
            "$ per 1,000",
            "p50 s",
            "p95 s",
            "degraded %",
            "failed %",
            "AUROC",
            "regret",
        ),
        tuple(rows),
        f"n = {findings.questions}. Judges, retries and hedges are in calls, tokens and dollars. AUROC: the "
        "chance that a right answer is surer than a wrong one. Regret: points below the oracle, which is "
        f"right where any member has it.{timed}",
    )


def _members(findings: Findings) -> Table:
    panel = findings.panel
    rows = [
        ("all members wrong, β", _percent(panel.all_wrong.value) + " %", _range(panel.all_wrong)),
        (
            "ceiling, 1 - β",
            _percent(panel.ceiling) + " %",
            f"{_percent(1 - panel.all_wrong.high)} to {_percent(1 - panel.all_wrong.low)}",
        ),
        ("best member above the mean of the others", f"{panel.gap * 100:.1f} points", ""),
        ("mean correlation of errors", _number(panel.mean_correlation), ""),
        (f"effective votes of {len(findings.members)}", _number(panel.effective_votes), ""),
        (
            "same answer where two err",
            _NONE if panel.same_when_wrong is None else _percent(panel.same_when_wrong) + " %",
            "",
        ),
    ]
    return Table(
        "The members together",
        ("measure", "value", "95 % interval"),
        tuple(rows),
        f"n = {findings.questions}. No way to choose among these answers passes the ceiling; only one that "
        "writes new ones can. A vote helps while the best member is less than about 10 points above the "
        "others." + (" Here it is more." if panel.gap * 100 > _HELPED else ""),
    )


def _votes(findings: Findings) -> Table:
    rows = [
        (arm.name, votes, str(count), _percent(right))
        for arm in findings.arms
        if arm.kind == "strategy"
        for votes, (count, right) in arm.by_votes.items()
    ]
    return Table(
        "Accuracy by votes",
        ("arm", "first answers that agree with the chosen one", "questions", "right %"),
        tuple(rows),
        "Rows of few questions show little: with 20, the interval is about 20 points to either side.",
    )


def _tags(findings: Findings) -> Table:
    names = [arm.name for arm in findings.arms if arm.kind in {"strategy", "best", "oracle"}]
    rows = [
        (
            tag.tag,
            str(tag.questions),
            *(
                f"{_percent(tag.accuracy[name].value)} ({_range(tag.accuracy[name])})"
                if name in tag.accuracy
                else _NONE
                for name in names
            ),
        )
        for tag in findings.tags
    ]
    return Table(
        "Right %, by tag",
        ("tag", "questions", *names),
        tuple(rows),
        "In brackets 95 % intervals. Tags have fewer questions than the whole, so they show "
        "less; no verdict is given.",
    )


def _percent(share: float) -> str:
    return f"{share * 100:.1f}"


def _range(interval: Interval) -> str:
    return f"{interval.low * 100:.1f} to {interval.high * 100:.1f}"


def _points(interval: Interval) -> str:
    return f"{interval.low * 100:+.1f} to {interval.high * 100:+.1f}"


def _signed(interval: Interval | None) -> str:
    return _NONE if interval is None else f"{interval.value * 100:+.1f} [{_points(interval)}]"


def _money(cost: float | None) -> str:
    if cost is None:
        return _NONE
    thousand = cost * 1_000
    return f"{thousand:,.0f}" if thousand >= _LARGE else f"{thousand:.3g}"


def _number(value: float | None) -> str:
    return _NONE if value is None else f"{value:.2f}"
