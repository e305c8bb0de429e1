"""Counters of the runs of one orchestrator, since it was made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

from ultra._support.histogram import Histogram, HistogramCounts

if TYPE_CHECKING:
    from ultra.messages.observers import RunOutcome
    from ultra.messages.options import RunOptions

__all__ = ["OTHERS", "RunCounts", "RunMetrics", "Spending"]

LABELS: Final = 256
"""How many names of runs, and how many scopes, are told apart: both may be anybody's text."""

OTHERS: Final = "other"
"""The name of those beyond."""


class RunCounts(Struct, frozen=True, kw_only=True):
    """The runs of one name and strategy: how many ended how, and how long they took [s]."""

    name: str
    strategy: str
    ended: dict[str, int]
    seconds: HistogramCounts


class Spending(Struct, kw_only=True):
    """What the runs of one scope have used: tokens, and dollars as far as prices are known."""

    runs: int = 0
    tokens: int = 0
    cost: float = 0.0


class _Counter:
    __slots__ = ("ended", "seconds")

    def __init__(self) -> None:
        self.ended = {"success": 0, "degraded": 0, "failed": 0, "cancelled": 0}
        self.seconds = Histogram()


class RunMetrics:
    """Counts runs. `running` is how many are under way."""

    def __init__(self) -> None:
        self.running = 0
        self._runs: dict[tuple[str, str], _Counter] = {}
        self._spending: dict[str, Spending] = {}

    def started(self) -> None:
        """Count a run that begins."""
        self.running += 1

    def ended(
        self, strategy: str, options: RunOptions, outcome: RunOutcome, tokens: int, cost: float | None
    ) -> None:
        """Count a run that has ended, and what it has used."""
        self.running -= 1
        key = (options.name or "", strategy)
        if key not in self._runs and len(self._runs) >= LABELS:
            key = (OTHERS, OTHERS)
        counter = self._runs.setdefault(key, _Counter())
        counter.ended[outcome.status] += 1
        counter.seconds.add(outcome.seconds)
        scope = options.scope or ""
        if scope not in self._spending and len(self._spending) >= LABELS:
            scope = OTHERS
        spent = self._spending.setdefault(scope, Spending())
        spent.runs += 1
        spent.tokens += tokens
        spent.cost += cost or 0.0

    def counts(self) -> tuple[RunCounts, ...]:
        """Return the counts at this moment."""
        return tuple(
            RunCounts(name=name, strategy=strategy, ended=dict(each.ended), seconds=each.seconds.snapshot())
            for (name, strategy), each in self._runs.items()
        )

    def spending(self) -> dict[str, Spending]:
        """Return what each scope has used; that of runs without a scope is empty."""
        return {
            scope: Spending(runs=each.runs, tokens=each.tokens, cost=each.cost)
            for scope, each in self._spending.items()
        }
