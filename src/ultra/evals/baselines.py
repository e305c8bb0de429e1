"""What strategies are measured beside: random and best member, samples of it at equal cost, judge, oracle."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING, Final, NamedTuple

from ultra.evals.analysis import Measured
from ultra.evals.arms import Arm, Outcome, samples_arm
from ultra.evals.halves import best_members, crossed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from ultra.evals.dataset import Question
    from ultra.evals.outcomes import Outcomes

__all__ = ["BEST", "ORACLE", "RANDOM", "Sampling", "baselines"]

RANDOM: Final = "random member"
BEST: Final = "best member"
ORACLE: Final = "oracle"


class Sampling(NamedTuple):
    """How several samples of one model are had: so many at most; `left_out` is told what cannot be."""

    outcomes: Outcomes
    questions: Sequence[Question]
    most: int
    left_out: dict[str, str]

    def more_and_more(self, models: tuple[str, str], arm: Arm, dearest: float) -> Iterator[Measured | None]:
        """Yield 3, 5, … samples, of one model on the even questions and the other on the odd ones.

        That ends with those that take `dearest` calls; None ends it, too: further ones cannot be had. In the
        name and the options of `arm`, the number stands in the place of ``{}``.
        """
        calls = 1.0
        for count in range(3, self.most + 1, 2):
            if calls >= dearest:
                return
            arms = samples_arm(models[0], count), samples_arm(models[1], count)
            name = arm.name.format(count)
            template = Arm(name=name, kind=arm.kind, options={"samples": count})
            made = crossed(self.outcomes, arms, self.questions, template)
            yield made
            if made is None:
                return
            calls = made.calls


def baselines(
    members: Sequence[Measured], strategies: Sequence[Measured], judge: str | None, sampling: Sampling
) -> list[Measured]:
    """Return all baselines. `members` stand by weight; `judge` names the model that grades answers."""
    halves = best_members(members)
    by_name = {each.arm.name: each for each in members}
    best = [by_name[halves[at % 2]].outcomes[at] for at in range(len(sampling.questions))]
    chosen = " and ".join(dict.fromkeys(halves))
    found = [
        Measured(Arm(name=RANDOM, kind="random"), [_mean(row) for row in _rows(members)]),
        Measured(Arm(name=BEST, kind="best"), best, f"chosen on the other half: {chosen}"),
        Measured(Arm(name=ORACLE, kind="oracle"), [_best(row) for row in _rows(members)]),
    ]
    found += _samples_of_best(halves, found[1], strategies, sampling)
    reader = by_name.get(judge or members[0].arm.name)
    return found if reader is None else found + _judge(reader, strategies, sampling)


def _samples_of_best(
    halves: tuple[str, str], best: Measured, strategies: Sequence[Measured], sampling: Sampling
) -> Iterator[Measured]:
    """Yield more and more samples of the best member, up to the cost of the dearest strategy."""
    last = 1
    arm = Arm(name=f"{BEST} x{{}}", kind="samples")
    for made in sampling.more_and_more(halves, arm, _dearest(strategies, best)):
        last += 2
        if made is None:
            sampling.left_out[f"{BEST} x{last} and more"] = "further samples of it are not recorded"
        else:
            yield made


def _judge(alone: Measured, strategies: Sequence[Measured], sampling: Sampling) -> list[Measured]:
    """Return the model that reads the others' answers, alone, and with the dearest strategy's budget."""
    judge = alone.arm.name
    found = [Measured(Arm(name=f"judge alone ({judge})", kind="judge"), alone.outcomes)]
    count, last = 1, None
    arm = Arm(name="judge x{} (the dearest strategy's budget)", kind="judge")
    for made in sampling.more_and_more((judge, judge), arm, _dearest(strategies, alone)):
        count, last = count + 2, made
        if made is None:
            sampling.left_out[arm.name.format(count)] = "further samples of it are not recorded"
    return found if last is None else [*found, last]


def _dearest(strategies: Sequence[Measured], single: Measured) -> float:
    """Return how many calls of `single` cost as much as the dearest strategy, in calls and in dollars."""
    calls = [each.calls for each in strategies]
    calls += [each.cost / single.cost for each in strategies if each.cost is not None and single.cost]
    return max(calls, default=1.0)


def _rows(members: Sequence[Measured]) -> list[tuple[Outcome, ...]]:
    return list(zip(*(each.outcomes for each in members), strict=True))


def _mean(row: Sequence[Outcome]) -> Outcome:
    """Return what a member that is drawn at random comes to on average."""
    return _combined(row, score=fmean, amount=fmean, seconds=fmean)


def _best(row: Sequence[Outcome]) -> Outcome:
    """Return the best of these answers, at the cost of them all."""
    return _combined(row, score=max, amount=sum, seconds=max)


def _combined(
    row: Sequence[Outcome],
    *,
    score: Callable[[Iterable[float]], float],
    amount: Callable[[Iterable[float]], float],
    seconds: Callable[[Iterable[float]], float],
) -> Outcome:
    """Return one outcome out of several; its cost is known where that of all is."""
    costs = [each.cost for each in row if each.cost is not None]
    return Outcome(
        text="",
        score=score(each.score for each in row),
        calls=amount(each.calls for each in row),
        input_tokens=amount(each.input_tokens for each in row),
        output_tokens=amount(each.output_tokens for each in row),
        cost=amount(costs) if len(costs) == len(row) else None,
        seconds=seconds(each.seconds for each in row),
    )
