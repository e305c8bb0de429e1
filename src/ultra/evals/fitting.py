"""Weights that a panel suggests for its models, as lines of `ultra.toml`.

The weight of a vote is the log-odds of being right: among independent voters no other weighting decides
better (Nitzan and Paroush, 1982). Errors of models are not independent, so the report measures what it gains.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["fitted_toml", "fitted_weights"]

_LEAST: Final = 0.01
"""The weight of a model that is right no more often than not; 0 would take its vote from it."""
_DIGITS: Final = 3


def fitted_weights(scores: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return the log-odds weight of each model, from its scores on questions; the highest is 1.

    Half a right and half a wrong answer are added to each, so that no weight is infinite.
    """
    weights = {}
    for name, each in scores.items():
        share = (sum(each) + 0.5) / (len(each) + 1)
        weights[name] = max(_LEAST, math.log(share / (1 - share))) if 0 < share < 1 else _LEAST
    highest = max(weights.values(), default=1.0)
    return {name: round(max(_LEAST, weight / highest), _DIGITS) for name, weight in weights.items()}


def fitted_toml(scores: Mapping[str, Sequence[float]], *, source: str, remarks: Sequence[str] = ()) -> str:
    """Return lines for `ultra.toml` with the weight of each model, and what they come from."""
    lines = [
        f"# Weights by 'ultra eval --fit', from {max(map(len, scores.values()), default=0)} questions of"
    ]
    lines += [f"# {source}.", *(f"# {remark}" for remark in remarks)]
    for name, weight in fitted_weights(scores).items():
        lines += ["", f"[models.{_key(name)}]", f"weight = {weight:g}"]
    return "\n".join(lines) + "\n"


def _key(name: str) -> str:
    bare = name.replace("-", "").replace("_", "")
    if bare.isascii() and bare.isalnum():
        return name
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
