"""Sums of weights that can be compared: 0.1 and 0.2 are together as much as 0.3."""

from __future__ import annotations

from math import fsum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["rounded", "summed"]


def summed(weights: Iterable[float]) -> float:
    """Return the sum of `weights`, which does not depend on their order; see `rounded`."""
    return rounded(fsum(weights))


def rounded(weight: float) -> float:
    """Return a sum, or a share, of weights to twelve digits.

    What was lost on the way from decimal to binary numbers must not decide a vote. ::

        rounded(0.1 + 0.2) == 0.3
    """
    return float(f"{weight:.12g}")
