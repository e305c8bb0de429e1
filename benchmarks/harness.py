"""Measures two things interleaved, and reports the ratio of their times with its spread.

A machine's speed drifts: other programs, frequency, caches. So ours and theirs take turns, round by
round, and what is reported is the median of the rounds' ratios, which drift cannot bend.
"""

from __future__ import annotations

import gc
import math
import statistics
from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Row", "Timer", "compare", "p99", "row", "table"]

Timer = Callable[[], float]
"""Does its work once and returns the seconds that it took, for one operation."""


class Row(Struct, frozen=True, kw_only=True):
    """One comparison.

    `ratio` is the median of ours over theirs (below 1 is faster), `low` and `high` the least and the most of
    the rounds. `target` is the most that the ratio may be; None: reported only. `name` is what the benchmark
    is asked for by; where it was `brief`, the numbers mean nothing.
    """

    benchmark: str
    against: str
    ratio: float
    low: float
    high: float
    target: float | None
    met: bool | None
    ours: float
    theirs: float
    unit: str = "s"
    note: str = ""
    name: str = ""
    brief: bool = False


def compare(
    benchmark: str,
    ours: Timer,
    others: Mapping[str, tuple[Timer, float | None]],
    *,
    rounds: int,
    note: str = "",
    limit: str | None = None,
) -> list[Row]:
    """Run everything once to warm up, then `rounds` times in turn; `others` have a timer and a target.

    `limit` names that one of the others which nothing of its kind can be faster than: it is compared with
    those that have a target, too, so that it shows which of these can be met at all.
    """
    timers = {"": ours, **{name: timer for name, (timer, _) in others.items()}}
    for timer in timers.values():
        timer()
    taken: dict[str, list[float]] = {name: [] for name in timers}
    for _ in range(rounds):
        for name, timer in timers.items():
            gc.collect()
            taken[name].append(timer())
    rows = [
        row(benchmark, name, taken[""], taken[name], target=target, note=note)
        for name, (_, target) in others.items()
    ]
    if limit is not None:
        rows += [
            row(f"{benchmark}: {limit}", name, taken[limit], taken[name], target=None)
            for name, (_, target) in others.items()
            if name != limit and target is not None
        ]
    return rows


def row(
    benchmark: str,
    against: str,
    ours: Sequence[float],
    theirs: Sequence[float],
    *,
    target: float | None,
    note: str = "",
    unit: str = "s",
) -> Row:
    """The row for two series that were measured in turn."""
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    ratio = statistics.median(ratios)
    return Row(
        benchmark=benchmark,
        against=against,
        ratio=ratio,
        low=min(ratios),
        high=max(ratios),
        target=target,
        met=None if target is None else ratio <= target,
        ours=statistics.median(ours),
        theirs=statistics.median(theirs),
        unit=unit,
        note=note,
    )


def p99(values: Sequence[float]) -> float:
    """The 99th percentile: the least of `values` that at least 99 in 100 of them do not exceed."""
    return sorted(values)[math.ceil(0.99 * len(values)) - 1]


def table(rows: Sequence[Row]) -> str:
    """The rows as a table for people, in Markdown."""
    lines = [
        "| benchmark | against | ratio | low-high | target | met | ours | theirs |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for line in rows:
        target = "" if line.target is None else f"{line.target:.3g}"
        met = "" if line.met is None else ("yes" if line.met else "no")
        lines.append(
            f"| {line.benchmark} | {line.against} | {line.ratio:.3g} | {line.low:.3g}-{line.high:.3g} "
            f"| {target} | {met} | {amount(line.ours, line.unit)} | {amount(line.theirs, line.unit)} |"
        )
    return "\n".join(lines)


def amount(value: float, unit: str) -> str:
    """A measured value with a unit that suits its size."""
    if unit != "s":
        return f"{value:,.0f} {unit}"
    for factor, name in ((1, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if value >= factor:
            return f"{value / factor:.3g} {name}"
    return f"{value * 1e9:.0f} ns"
