"""Weights of votes: the log-odds of being right, from known shares of right answers or from agreement alone.

For voters that err independently, the log-odds of being right are the best weights (Nitzan and Paroush, 1982;
Grofman, Owen and Feld, 1983). Without known answers, how often each model agrees with what the others vote
for tells how good it is: the maximum-likelihood estimate of Dawid and Skene (1979), with one share of right
answers for each model. What all get wrong together, no count of agreement can tell; nor whether one is right
against two that agree with each other.
"""

from __future__ import annotations

from collections import Counter
from math import exp, inf, log, sqrt
from statistics import fmean, pvariance
from typing import TYPE_CHECKING, Final

from ultra._support.checks import check_number
from ultra.errors import BadCall

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["agreement_weights", "log_odds_weights"]

_MOST: Final = 0.995
"""No model is taken to be right more often than so: few questions tell no more."""
_START: Final = 0.7
_ROUNDS: Final = 50
_PARTS: Final = 10
"""The parts of the questions that are left out, one after the other; with fewer questions nothing is told."""
_NEAR: Final = 1e-6
_FEWEST: Final = 2
_PRIOR: Final = 1.0
"""Answers that are added on each side, so that a few questions do not make a model perfect."""

Pattern = tuple[int, ...]


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
    takes linear time in the answers.

    Models whose difference is within its standard error (by the jackknife over ten parts of the questions)
    weigh the same: where agreement does not tell who is better, it is not to decide. For the same reason no
    model weighs more than all the others together. Where models agree on nothing, or there are fewer than ten
    questions, all weights are equal.

    Raises:
        BadCall: `choices` is below 2.
    """
    if choices < _FEWEST:
        raise BadCall(f"choices is {choices!r}; it must be 2 or more")
    names = list(dict.fromkeys(name for row in answers for name in row))
    rows = [{name: final for name, final in row.items() if final is not None} for row in answers]
    patterns = [_pattern(row, names) for row in rows if len(row) >= _FEWEST]
    weights = _estimated(Counter(patterns), len(names), choices)
    parts = min(_PARTS, len(patterns))
    without = [
        _estimated(
            Counter(pattern for at, pattern in enumerate(patterns) if at % parts != part), len(names), choices
        )
        for part in range(parts)
    ]
    found = {name: round(weight, 9) for name, weight in zip(names, _pooled(weights, without), strict=True)}
    return found if any(found.values()) else dict.fromkeys(names, 1.0)


def _pattern(row: Mapping[str, str], names: Sequence[str]) -> Pattern:
    """Return which models agree: for each, the number of its answer in the row, or -1 where it has none."""
    numbers: dict[str, int] = {}
    return tuple(numbers.setdefault(row[name], len(numbers)) if name in row else -1 for name in names)


def _estimated(patterns: Counter[Pattern], models: int, choices: float) -> list[float]:
    """Return the maximum-likelihood weight of each model, from how often each pattern was seen."""
    shares = [_START] * models
    given = [
        sum(times for pattern, times in patterns.items() if pattern[model] >= 0) for model in range(models)
    ]
    for _ in range(_ROUNDS):
        weights = [_weight(share, choices) for share in shares]
        right = [0.0] * models
        for pattern, times in patterns.items():
            likely = _probabilities(pattern, weights, choices)
            for model, number in enumerate(pattern):
                right[model] += times * likely[number] if number >= 0 else 0.0
        before = shares
        shares = [(found + _PRIOR) / (count + 2 * _PRIOR) for found, count in zip(right, given, strict=True)]
        if all(abs(share - old) < _NEAR for share, old in zip(shares, before, strict=True)):
            break
    return [_weight(share, choices) for share in shares]


def _pooled(weights: Sequence[float], without: Sequence[Sequence[float]]) -> list[float]:
    """Return weights: the same for those that cannot be told apart, and none above all the others together.

    `without` has the weights as they are without each part of the questions (Quenouille, 1956; Tukey, 1958).
    """
    groups: list[list[int]] = []
    for model in sorted(range(len(weights)), key=lambda model: -weights[model]):
        first = groups[-1][0] if groups else model
        if groups and weights[first] - weights[model] <= _standard_error(first, model, without):
            groups[-1].append(model)
        else:
            groups.append([model])
    means = {model: fmean(weights[each] for each in group) for group in groups for model in group}
    total = sum(means.values())
    return [min(means[model], total - means[model]) for model in range(len(weights))]


def _standard_error(one: int, other: int, without: Sequence[Sequence[float]]) -> float:
    """Return that of the difference of two weights; infinite where there are too few parts to tell."""
    if len(without) < _PARTS:
        return inf
    differences = [weights[one] - weights[other] for weights in without]
    return sqrt((len(differences) - 1) * pvariance(differences))


def _weight(share: float, choices: float) -> float:
    share = min(share, _MOST)
    return max(0.0, log((choices - 1) * share / (1 - share))) if share > 0 else 0.0


def _probabilities(pattern: Pattern, weights: Sequence[float], choices: float) -> list[float]:
    """Return for each answer how likely it is the right one, by the weights of those who gave it.

    None of them may be right: each choice that nobody gave has no weight behind it.
    """
    behind = [0.0] * (max(pattern) + 1)
    for weight, number in zip(weights, pattern, strict=True):
        if number >= 0:
            behind[number] += weight
    most = max(behind)
    likely = [exp(weight - most) for weight in behind]
    total = sum(likely) + max(0.0, choices - len(behind)) * exp(-most)
    return [each / total for each in likely]
