"""Counts of values by size, in fixed buckets: a few numbers, however many values there were."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Final

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["SECONDS", "Histogram", "HistogramCounts"]

SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""The upper bounds of buckets for what a language model takes."""


class HistogramCounts(Struct, frozen=True):
    """A histogram at one moment.

    `counts` has one number more than `bounds`: the values up to each bound and above the one before it, and
    last those above all bounds. `total` is the sum of the values.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self.counts)


class Histogram:
    """Counts values by the bucket that they fall into; `bounds` ascend."""

    __slots__ = ("_bounds", "_counts", "_total")

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._total = 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def snapshot(self) -> HistogramCounts:
        """Return the numbers at this moment."""
        return HistogramCounts(self._bounds, tuple(self._counts), self._total)
