"""Intervals and measures of a report, by scipy where the extra ``eval`` is installed.

Without it, the same are approximated: the interval of a mean difference by the normal distribution, that of
a share by Wilson's formula, in place of the bootstrap and of the exact binomial one. `EXACT` says which.
"""

from __future__ import annotations

import math
from functools import lru_cache
from importlib.util import find_spec
from statistics import NormalDist, fmean, stdev
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "EXACT",
    "Interval",
    "auroc",
    "correlation",
    "detectable",
    "effective_votes",
    "exact_share",
    "holm",
    "mean_difference",
    "p_value",
    "percentile",
    "wilson",
]

EXACT: Final = find_spec("scipy") is not None
"""Whether scipy is there."""

RESAMPLES: Final = 4_000
_SEED: Final = 20_240_613
_LEVEL: Final = 0.95
_POWER: Final = 0.8


class Interval(Struct, frozen=True):
    """A value with the ends of its interval."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 is outside of it."""
        return self.low > 0 or self.high < 0


def wilson(successes: float, n: int, level: float = _LEVEL) -> Interval:
    """Return the share of `successes` among `n` with its interval (Wilson, 1927).

    `successes` may be a sum of scores between 0 and 1; then the interval is rather too wide.
    """
    if not n:
        return Interval(0.0, 0.0, 1.0)
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = successes / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # Where all or none succeed, an end is the share itself, but for what is rounded.
    return Interval(share, max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half)))


def exact_share(successes: int, n: int, level: float = _LEVEL) -> Interval:
    """Return a share with its exact interval (Clopper and Pearson, 1934); by Wilson's without scipy."""
    if not EXACT or not n:
        return wilson(successes, n, level)
    from scipy.stats import binomtest  # type: ignore[import-untyped]  # noqa: PLC0415 - it takes long to import

    found = binomtest(successes, n).proportion_ci(level, method="exact")
    return Interval(successes / n, float(found.low), float(found.high))


def mean_difference(differences: Sequence[float], level: float = _LEVEL) -> Interval:
    """Return the mean of paired differences with its interval, by resampling the pairs (Efron, 1979)."""
    n = len(differences)
    mean = fmean(differences) if n else 0.0
    if len(set(differences)) <= 1:
        # Nothing differs, so nothing can be resampled; what could hide in n pairs that agree is not 0.
        unseen = 1 - (1 - level) ** (1 / n) if n else 1.0
        return Interval(mean, mean - unseen, mean + unseen)
    if EXACT:
        import numpy as np  # noqa: PLC0415 - comes with scipy

        low, high = np.quantile(_resampled(tuple(differences)), [(1 - level) / 2, (1 + level) / 2])
        return Interval(mean, float(low), float(high))
    half = NormalDist().inv_cdf((1 + level) / 2) * stdev(differences) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half)


def p_value(differences: Sequence[float]) -> float:
    """Return how likely a mean difference as far from 0 as this is where none is there, in either direction.

    It is about the largest 1 - level at which the interval of `mean_difference` excludes 0.
    """
    n = len(differences)
    mean = fmean(differences) if n else 0.0
    if len(set(differences)) <= 1:
        return max(0.0, 1 - abs(mean)) ** n
    if EXACT:
        means = _resampled(tuple(differences))
        beyond = min(int((means <= 0).sum()), int((means >= 0).sum()))
        return min(1.0, 2 * (beyond + 1) / (len(means) + 1))
    error = stdev(differences) / math.sqrt(n)
    return 2 * NormalDist().cdf(-abs(mean) / error)


def holm(p_values: Sequence[float], level: float = _LEVEL) -> list[bool]:
    """Return which of several differences are there, by their p-values (Holm, 1979).

    However many are judged, the chance that one or more of the answers is wrong is at most 1 - level. As
    Bonferroni's correction it needs no independence, and it shows no less.
    """
    found = [False] * len(p_values)
    for number, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[place] > (1 - level) / (len(p_values) - number):
            break
        found[place] = True
    return found


@lru_cache(maxsize=8)
def _resampled(differences: tuple[float, ...]) -> Any:  # noqa: ANN401 - of an optional package
    """Return the means of resampled differences; the intervals of several levels are read from them."""
    import numpy as np  # noqa: PLC0415 - comes with scipy
    from scipy.stats import bootstrap  # noqa: PLC0415 - it takes long to import

    return bootstrap(
        (np.asarray(differences, dtype=float),),
        np.mean,
        n_resamples=RESAMPLES,
        batch=500,
        method="percentile",
        rng=np.random.default_rng(_SEED),
    ).bootstrap_distribution


def detectable(differences: Sequence[float], level: float = _LEVEL) -> float:
    """Return the smallest true difference that so many pairs show with a power of 80 %.

    It is taken from how much the pairs vary; where none differs, one pair in n is taken to.
    """
    n = len(differences)
    if n < 2:  # noqa: PLR2004 - one pair does not vary
        return 1.0
    spread = stdev(differences) or math.sqrt(1 / n)
    normal = NormalDist()
    z = normal.inv_cdf((1 + level) / 2) + normal.inv_cdf(_POWER)
    return z * spread / math.sqrt(n)


def auroc(confidences: Sequence[float], right: Sequence[bool]) -> float | None:
    """Return the chance that a right answer has a higher confidence than a wrong one; ties count half.

    None: there are no right ones, or no wrong ones.
    """
    pairs = sorted(zip(confidences, right, strict=True))
    positives = sum(right)
    negatives = len(pairs) - positives
    if not positives or not negatives:
        return None
    ranks, index = 0.0, 0
    while index < len(pairs):
        end = index
        while end < len(pairs) and pairs[end][0] == pairs[index][0]:
            end += 1
        ranks += (index + 1 + end) / 2 * sum(is_right for _, is_right in pairs[index:end])
        index = end
    return (ranks - positives * (positives + 1) / 2) / (positives * negatives)


def correlation(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Return the correlation of two series; None: one of them does not vary."""
    n = len(one)
    if not n:
        return None
    mean_one, mean_other = fmean(one), fmean(other)
    product = sum((a - mean_one) * (b - mean_other) for a, b in zip(one, other, strict=True))
    squares = sum((a - mean_one) ** 2 for a in one) * sum((b - mean_other) ** 2 for b in other)
    return product / math.sqrt(squares) if squares else None


def effective_votes(members: int, mean_correlation: float) -> float:
    """Return how many independent voters `members` with this mean correlation of errors are worth (Kish)."""
    return members / (1 + (members - 1) * max(0.0, mean_correlation))


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which this share of the values lies; the nearest one."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, math.ceil(share * len(ordered)) - 1))] if ordered else 0.0
