"""Options that a panel suggests: weights of votes; when a cascade has heard enough, and whom it asks first.

Each is learned on one half of the questions and measured on the other, so the report does not praise what was
learned by heart. What `ultra eval --fit` writes is learned on all of them.

The weight of a vote is the log-odds of being right: among independent voters no other weighting decides
better (Nitzan and Paroush, 1982). The more wrong answers there are to give, the more a vote says, so how many
there seem to be is counted. Without known answers, agreement tells how good each model is (Dawid and Skene,
1979). Errors of models are not independent, so the report measures what both gain.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from math import sqrt
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ultra.evals.arms import Arm, Outcome
from ultra.scoring.vote_weights import agreement_weights, log_odds_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = [
    "Candidate",
    "Fitted",
    "Fitter",
    "agreement_fitter",
    "cascade_candidates",
    "cascade_fitter",
    "cascade_orders",
    "cheapest",
    "fitted_weights",
    "log_odds_fitter",
]

_DIGITS: Final = 3
_THRESHOLDS: Final = (0.6, 0.7, 0.8, 0.9, 1.0)
_QUALITIES: Final = (None, 0.5, 0.7, 0.9)
_FIRST: Final = 2
"""How many models a cascade asks at the beginning by default."""

_RIGHT: Final = 0.5
_MOST_CHOICES: Final = 20.0

Options = dict[str, Any]
Finals = Mapping[str, str | None]
"""The final answer of each model to a question."""


class Fitter(NamedTuple):
    """Learns options of an arm.

    `name` is what reports call the arm with them, `ensemble` what a configuration calls it. `learn` gives the
    options from the questions at these places.
    """

    name: str
    ensemble: str
    plain: Arm
    learn: Callable[[Sequence[int]], Options]

    def arm(self, places: Sequence[int], name: str) -> Arm:
        """Return the arm with what is learned from the questions at these places."""
        plain = self.plain
        return Arm(
            name=name,
            strategy=plain.strategy,
            options=plain.options | self.learn(places),
            models=plain.models,
            run=plain.run,
        )


class Fitted(NamedTuple):
    """What was learned from all questions: the arm `name`, as the ensemble `ensemble` of a configuration."""

    name: str
    ensemble: str
    arm: Arm


class Candidate(NamedTuple):
    """Options of a cascade, and what it came to with them on each of the questions that are learned from."""

    options: Options
    outcomes: Sequence[Outcome]


def fitted_weights(scores: Mapping[str, Sequence[float]], choices: float = 2) -> dict[str, float]:
    """Return the log-odds weight of each model, from its scores on questions; see `log_odds_weights`.

    Half a right and half a wrong answer are added to each, so that few questions make no weight infinite.
    """
    shares = {name: (sum(each) + 0.5) / (len(each) + 1) for name, each in scores.items()}
    return _rounded(log_odds_weights(shares, choices))


def log_odds_fitter(plain: Arm, scores: Mapping[str, Sequence[float]], finals: Sequence[Finals]) -> Fitter:
    """Return what weighs the votes by the log-odds of being right.

    `scores` are those of each model, `finals` the models' final answers to each question.
    """

    def learn(places: Sequence[int]) -> Options:
        chosen = {name: [each[at] for at in places] for name, each in scores.items()}
        wrong = [
            [final for name, final in finals[at].items() if final is not None and scores[name][at] <= _RIGHT]
            for at in places
        ]
        # Models that err together agree too often for the count of wrong answers to be trusted unseen.
        tried = [fitted_weights(chosen, choices) for choices in (2.0, _choices(wrong))]
        return {"weights": max(tried, key=lambda weights: _right_votes(weights, scores, finals, places))}

    return Fitter(f"{plain.name}, fitted weights", "vote-fitted", plain, learn)


def agreement_fitter(plain: Arm, finals: Sequence[Finals]) -> Fitter:
    """Return what weighs the votes by agreement alone, without a look at what is right."""

    def learn(places: Sequence[int]) -> Options:
        rows = [finals[at] for at in places]
        return {"weights": _rounded(agreement_weights(rows, _choices(map(_outvoted, rows))))}

    return Fitter(f"{plain.name}, weights by agreement", "vote-by-agreement", plain, learn)


def _right_votes(
    weights: Mapping[str, float],
    scores: Mapping[str, Sequence[float]],
    finals: Sequence[Finals],
    places: Iterable[int],
) -> float:
    """Return the sum of the scores of the answers with most weight behind them, to these questions."""
    total = 0.0
    for at in places:
        behind: dict[str, float] = {}
        for name, final in finals[at].items():
            if final is not None:
                behind[final] = behind.get(final, 0.0) + weights[name]
        winner = max(behind, key=behind.__getitem__, default=None)
        standing = [name for name, final in finals[at].items() if final == winner and winner is not None]
        total += scores[max(standing, key=weights.__getitem__)][at] if standing else 0.0
    return total


def _choices(wrong: Iterable[Sequence[str]]) -> float:
    """Return among how many answers models seem to choose, from the wrong ones to each question.

    Where two that err give the same answer in one case of k, it is as with k wrong answers and a right one.
    """
    both = same = 0
    for answers in wrong:
        both += len(answers) * (len(answers) - 1) // 2
        same += sum(one == other for one, other in combinations(answers, 2))
    return min(_MOST_CHOICES, max(2.0, 1 + both / same)) if same else _MOST_CHOICES if both else 2.0


def _outvoted(row: Finals) -> list[str]:
    """Return the final answers that are not the most frequent one; they stand for the wrong ones."""
    given = [final for final in row.values() if final is not None]
    most = max(given, key=given.count, default=None)
    return [final for final in given if final != most]


def cascade_candidates(plain: Arm, models: int, *, graded: bool) -> list[Arm]:
    """Return a cascade's arms with all thresholds that differ, and, where a judge grades, qualities.

    Thresholds between the same two shares of votes that can be do the same: with three models there are two.
    """
    shares = {votes / voters for voters in range(_FIRST, models + 1) for votes in range(1, voters + 1)} | {
        1.0
    }
    reached: dict[float, float] = {}
    for threshold in _THRESHOLDS:
        reached.setdefault(min(share for share in shares if share >= threshold), threshold)
    return [
        _with(plain, {"threshold": threshold} | ({} if quality is None else {"quality": quality}))
        for threshold in reached.values()
        for quality in (_QUALITIES if graded else (None,))
    ]


def cascade_orders(
    plain: Arm, options: Options, usual: Sequence[str], scores: Mapping[str, float]
) -> list[Arm]:
    """Return a cascade's arms with these options that ask the best models first, and last.

    The best ones agree soonest on what is right; and where nothing is agreed on, the last may decide. `usual`
    is the order that needs no other arm.
    """
    best_first = sorted(scores, key=lambda name: -scores[name])
    orders = [order for order in (best_first, best_first[::-1]) if order != list(usual)]
    return [_with(plain, options | {"order": tuple(order)}) for order in orders]


def _with(plain: Arm, options: Options) -> Arm:
    return Arm(
        name=f"{plain.name} ({', '.join(f'{name}={value}' for name, value in options.items())})",
        strategy=plain.strategy,
        options=plain.options | options,
        models=plain.models,
        run=plain.run,
    )


def cascade_fitter(plain: Arm, candidates: Callable[[Sequence[int]], Sequence[Candidate]]) -> Fitter:
    """Return what chooses among options; `candidates` gives what is tried on questions at these places."""

    def learn(places: Sequence[int]) -> Options:
        chosen = cheapest(candidates(places))
        return {} if chosen is None else dict(chosen.options)

    return Fitter(f"{plain.name}, fitted", "cascade-fitted", plain, learn)


def cheapest(tried: Sequence[Candidate]) -> Candidate | None:
    """Return the cheapest that is as good as the best, as far as one can tell; None: there are none.

    That is the rule of one standard error (Breiman et al., 1984): the accuracy is below the highest one by no
    more than the standard error of the difference.
    """
    scores = [[outcome.score for outcome in each.outcomes] for each in tried]
    best = max(scores, key=fmean, default=[])
    good = [each for each, found in zip(tried, scores, strict=True) if _is_near(found, best)]
    return min(good, key=lambda each: _price(each.outcomes), default=None)


def _is_near(scores: Sequence[float], best: Sequence[float]) -> bool:
    differences = [one - other for one, other in zip(best, scores, strict=True)]
    error = stdev(differences) / sqrt(len(differences)) if len(differences) > 1 else 0.0
    return fmean(differences) <= error + 1e-9


def _price(outcomes: Iterable[Outcome]) -> float:
    """Return dollars for a question, or calls where a price is not known."""
    outcomes = list(outcomes)
    costs = [each.cost for each in outcomes if each.cost is not None]
    return fmean(costs) if len(costs) == len(outcomes) else fmean(each.calls for each in outcomes)


def _rounded(weights: Mapping[str, float]) -> dict[str, float]:
    """Return weights with few digits; where none is above 0, all weigh the same."""
    found = {name: round(weight, _DIGITS) for name, weight in weights.items()}
    return found if any(found.values()) else dict.fromkeys(found, 1.0)
