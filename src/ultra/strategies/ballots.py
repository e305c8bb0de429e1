"""Votes over final answers: who is asked next, when the outcome is certain, and who wins.

A majority vote over several models, or over samples of one, is self-consistency (Wang et al., 2022,
arXiv:2203.11171). To stop once the rest cannot change the outcome asks 2.1 to 2.6 of three models on recorded
answers, with the same result (as in arXiv:2604.02863).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypedDict

from ultra.messages.canonical_json import canonical_json
from ultra.scoring.final_answers import equal_answers
from ultra.scoring.weight_sums import rounded
from ultra.strategies.panel import check_quorum, needed_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ultra.messages.results import ModelResponse
    from ultra.strategies.base import Model, OpenStep, RunContext

__all__ = ["KEPT_FOR_DECISION", "Asked", "Ballot", "Rule", "Tally", "Voting", "final_answers", "tally"]

Rule = Literal["majority", "plurality"]
"""What wins: the answer with more than half of the weight, or the one with the most."""

KEPT_FOR_DECISION: Final = 0.2
"""The share of a run's time that is kept for a model that decides where the vote does not."""

_FEWEST: Final = 2
"""A vote is one of at least so many, if so many can be asked."""


class Ballot(NamedTuple):
    """One vote that may be asked for: a sample of a model, and what it weighs."""

    model: Model
    sample: int
    weight: float


class Asked(TypedDict):
    """Arguments of `RunContext.ask_all`."""

    models: list[Model]
    samples: dict[str, list[int]]
    until: Callable[[Sequence[ModelResponse]], bool] | None
    within: float | None
    required: bool


class Tally(NamedTuple):
    """The weight behind each final answer, in the order in which they stand, and of all who answered."""

    votes: dict[str, float]
    cast: float

    def winner(self, rule: Rule) -> str | None:
        """Return the final answer that wins; None: there is none. Of equals, the one that stands first."""
        votes = {final: rounded(weight) for final, weight in self.votes.items()}
        leading = max(votes, key=votes.__getitem__, default=None)
        if leading is None or not votes[leading] > 0:
            return None
        return leading if rule == "plurality" or votes[leading] > rounded(self.cast) / 2 else None

    def is_certain(self, rule: Rule, left: float) -> bool:
        """Return whether the winner stays the same, whatever the weight of `left` votes for."""
        first, second, *_ = map(rounded, self.ranked())
        return first > rounded(self.cast + left) / 2 if rule == "majority" else first > rounded(second + left)

    def ranked(self) -> list[float]:
        """Return the weights behind the answers, the highest first; two at least."""
        return [*sorted(self.votes.values(), reverse=True), 0.0, 0.0]


def final_answers(responses: Sequence[ModelResponse], question: str) -> list[str | None]:
    """Return what stands for the final answer of each; of structured answers, their JSON."""
    if responses and all(response.output is not None for response in responses):
        return [canonical_json(response.output) for response in responses]
    return equal_answers([response.content for response in responses], question)


def tally(responses: Sequence[ModelResponse], weights: Mapping[str, float], question: str) -> Tally:
    """Count the final answers by the weights of their models."""
    votes: dict[str, float] = {}
    for response, final in zip(responses, final_answers(responses, question), strict=True):
        if final is not None:
            votes[final] = votes.get(final, 0.0) + weights[response.model_name]
    return Tally(votes, sum(weights[response.model_name] for response in responses))


class Voting:
    """The votes of one step: no more are asked for at a time than could make the outcome certain.

    Where no outcome can be certain any more, the rest is asked, for whoever has to decide then. With
    `at_once` all are asked side by side, and what is needless is cancelled. A model that fails is not asked
    for more. So many seconds of the run are `kept` for others. ::

        voting = Voting(context, step, ballots, "majority")
        while asked := voting.next():
            voting.take(await context.ask_all(context.request, **asked))
        answers = voting.answers()
    """

    def __init__(
        self,
        context: RunContext,
        step: OpenStep,
        ballots: Sequence[Ballot],
        rule: Rule,
        *,
        at_once: bool = False,
        kept: float = 0.0,
    ) -> None:
        self._context = context
        self._step = step
        self._rule: Rule = rule
        self._at_once = at_once
        self._kept = kept
        self._weights = {ballot.model.name: ballot.weight for ballot in ballots}
        self._total = sum(ballot.weight for ballot in ballots)
        self._waiting = list(ballots)
        self._answers: list[ModelResponse] = []
        self._needed = min(needed_of(context), len(self._weights))
        self._earlier_failures = len(step.failures)
        self._out_of_budget = False

    def next(self) -> Asked | None:
        """Return what to ask `RunContext.ask_all` for now; None: nothing more."""
        context = self._context
        if self._answers and (self._step.left_out or self._is_out_of_budget()):
            return None
        asked = self._waiting
        if not self._at_once:
            counted = tally(self._answers, self._weights, context.request.prompt)
            fewest = _fewest(self._answers, self._waiting, self._needed)
            asked = self._waiting[: _next(counted, self._waiting, self._rule, fewest)]
        if not asked:
            return None
        self._waiting = self._waiting[len(asked) :]
        numbers: dict[str, list[int]] = {}
        for ballot in asked:
            numbers.setdefault(ballot.model.name, []).append(ballot.sample)
        seconds = context.time_left(KEPT_FOR_DECISION)
        if seconds is not None:
            # A model that hangs must not take the time of those who would answer.
            seconds = max(0.0, seconds - self._kept) / (2 if self._waiting else 1)
        return Asked(
            models=[model for model in context.models if model.name in numbers],
            samples=numbers,
            until=self._is_certain if len(asked) > 1 else None,
            within=seconds,
            required=not self._waiting and not self._answers,
        )

    def take(self, found: Sequence[ModelResponse]) -> None:
        """Count the answers that were asked for."""
        rank = {model.name: number for number, model in enumerate(self._context.models)}
        self._answers = sorted(
            [*self._answers, *found], key=lambda answer: (rank[answer.model_name], answer.sample)
        )
        failed = {failure.model_name for failure in self._step.failures}
        silent = failed - {answer.model_name for answer in self._answers}
        self._waiting = [ballot for ballot in self._waiting if ballot.model.name not in silent]

    def answers(self) -> list[ModelResponse]:
        """Return all answers, by the weight of their models, and tell who had to give none.

        Raises:
            QuorumNotReached: too few models answered.
        """
        context, answered = self._context, {answer.model_name for answer in self._answers}
        check_quorum(context, self._answers, most=len(self._weights))
        others = dict.fromkeys(ballot.model.name for ballot in self._waiting)
        spared = ", ".join(repr(name) for name in others if name not in answered)
        if spared and self._out_of_budget:
            context.degrade(f"the budget is used up: not asked for a vote: {spared}")
        elif spared and not self._step.left_out:
            context.note(f"the vote was certain without {spared}, which had to answer nothing")
        return self._answers

    def _is_out_of_budget(self) -> bool:
        left = self._context.spend_left
        self._out_of_budget = bool(self._waiting) and left is not None and left <= 0
        return self._out_of_budget

    def _is_certain(self, found: Sequence[ModelResponse]) -> bool:
        """Return whether nobody who has not answered can change the outcome."""
        known = [*self._answers, *found]
        counted = tally(known, self._weights, self._context.request.prompt)
        failures = self._step.failures[self._earlier_failures :]
        failed = sum(self._weights[failure.model_name] for failure in failures)
        left = self._total - failed - counted.cast
        return len(known) >= _FEWEST and counted.is_certain(self._rule, left)


def _next(counted: Tally, waiting: Sequence[Ballot], rule: Rule, fewest: int) -> int:
    """Return how many of those who wait are to be asked now, at least `fewest`; 0: the outcome is certain."""
    left = sum(ballot.weight for ballot in waiting)
    if fewest <= 0 and (counted.is_certain(rule, left) or left <= 0):
        return 0
    first, second, *_ = counted.ranked()
    gained = 0.0
    for number, ballot in enumerate(waiting, start=1):
        gained += ballot.weight
        left -= ballot.weight
        best = Tally({"first": first + gained, "second": second}, counted.cast + gained)
        if number >= fewest and best.is_certain(rule, left):
            return number
    return len(waiting)


def _fewest(answers: Sequence[ModelResponse], waiting: Sequence[Ballot], needed: int) -> int:
    """Return how many at least are to be asked: for the quorum, and so that there are two votes."""
    known = {answer.model_name for answer in answers}
    fewest = 0
    while len(known) < needed and fewest < len(waiting):
        known.add(waiting[fewest].model.name)
        fewest += 1
    return max(fewest, min(_FEWEST - len(answers), len(waiting)))
