"""Weights of votes: the log-odds of being right, from known shares of right answers or from agreement alone.

For voters that err independently, the log-odds of being right are the best weights (Nitzan and Paroush, 1982;
Grofman, Owen and Feld, 1983). Without known answers, how often each model agrees with what the others vote
for tells how good it is: the maximum-likelihood estimate of Dawid and Skene (1979), with one share of right
answers for each model. What all get wrong together, no count of agreement can tell.
"""

from __future__ import annotations

from math import exp, log
from typing import TYPE_CHECKING, Final

from ultra._support.checks import check_number
from ultra.errors import BadCall

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["agreement_weights", "log_odds_weights"]

_MOST: Final = 0.995
"""No model is taken to be right more often than so: few questions tell no more."""
_ROUNDS: Final = 50
_NEAR: Final = 1e-6
_FEWEST: Final = 2
_PRIOR: Final = 1.0
"""Answers that are added on each side, so that a few questions do not make a model perfect."""


def log_odds_weights(accuracies: Mapping[str, float], choices: float = 2) -> dict[str, float]:
    """Return the weights of votes of models with these shares of right answers (0..1).

    `choices` is how many answers there are to choose from: with more, models that are wrong seldom agree, and
    votes of weak models count. A model that is no better than chance has weight 0. ::

        log_odds_weights({"gpt": 0.9, "llama": 0.6})  # {'gpt': 2.197, 'llama': 0.405}

    Raises:
        BadCall: a share is no number from 0 to 1, or there are fewer than two choices.
    """
    if choices < _FEWEST:
        raise BadCall(f"choices is {choices!r}; it must be 2 or more")
    for name, share in accuracies.items():
        check_number(f"the share of right answers of {name!r}", share, most=1.0)
    return {name: round(_weight(share, choices), 9) for name, share in accuracies.items()}


def agreement_weights(answers: Sequence[Mapping[str, str | None]], choices: float = 2) -> dict[str, float]:
    """Return weights of votes from what models answered to many questions, without known answers.

    `answers` has for each question the final answer of each model, equal answers equal (as
    `ultra.scoring.final_answers.equal_answers` names them); None, or no entry: it gave none. The estimate
    takes linear time in the answers. Where models agree on nothing, all weights are equal.

    Raises:
        BadCall: `choices` is below 2.
    """
    if choices < _FEWEST:
        raise BadCall(f"choices is {choices!r}; it must be 2 or more")
    names = list(dict.fromkeys(name for row in answers for name in row))
    shares = dict.fromkeys(names, 0.7)
    rows = [{name: final for name, final in row.items() if final is not None} for row in answers]
    rows = [row for row in rows if len(row) >= _FEWEST]
    given = {name: sum(name in row for row in rows) for name in names}
    for _ in range(_ROUNDS):
        weights = {name: _weight(share, choices) for name, share in shares.items()}
        right = dict.fromkeys(names, 0.0)
        for row in rows:
            for name, probability in _probabilities(row, weights).items():
                right[name] += probability
        before, shares = shares, {name: (right[name] + _PRIOR) / (given[name] + 2 * _PRIOR) for name in names}
        if all(abs(shares[name] - before[name]) < _NEAR for name in names):
            break
    found = log_odds_weights(shares, choices)
    return found if any(found.values()) else dict.fromkeys(names, 1.0)


def _weight(share: float, choices: float) -> float:
    share = min(share, _MOST)
    return max(0.0, log((choices - 1) * share / (1 - share))) if share > 0 else 0.0


def _probabilities(row: Mapping[str, str], weights: Mapping[str, float]) -> dict[str, float]:
    """Return for each model how likely its answer is the right one, by the weights of those who gave it."""
    behind: dict[str, float] = {}
    for name, final in row.items():
        behind[final] = behind.get(final, 0.0) + weights[name]
    most = max(behind.values())
    likely = {final: exp(weight - most) for final, weight in behind.items()}
    total = sum(likely.values())
    return {name: likely[final] / total for name, final in row.items()}
