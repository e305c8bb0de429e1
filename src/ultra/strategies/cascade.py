"""Ask cheap models first, and more only where these disagree, score low, or fail a test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from msgspec import Struct

from ultra._support.checks import check_choice, check_count, check_number
from ultra.errors import BadCall
from ultra.messages.results import sample_name
from ultra.strategies.ballots import KEPT_FOR_DECISION
from ultra.strategies.base import Answer
from ultra.strategies.best_of import Verify, verified
from ultra.strategies.panel import (
    check_model_name,
    check_named,
    check_names,
    check_quorum,
    needed_of,
    only_answer,
    read_and_decide,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from ultra.messages.results import ModelResponse
    from ultra.strategies.base import Model, RunContext

__all__ = ["Cascade", "CascadeEnd"]

CascadeEnd = Literal["judge", "last"]
"""What stands where all were asked and nothing was accepted: what a judge decides, or the last answer."""

_HALF: Final = 0.5
_FEWEST: Final = 2
"""So many answers at least must be the same to agree."""


class Cascade(Struct, frozen=True, kw_only=True):
    """Ask the cheapest models first, and further ones, one at a time, until an answer is good enough.

    After FrugalGPT (Chen et al., 2023) and AutoMix (Madaan et al., 2023). `first` is how many are asked at
    the beginning, `order` the names of the models, cheapest first; by default they go by price where all have
    one, else the lightest come first. Good enough is an answer

    - that passes `test`, a function of its text that gives True, or a number of at least `quality` (0..1);
    - or, without a test, that was given twice at least, for which at least the share `threshold` (0..1) of
      the weight stands, and whose grade by the orchestrator's scorer or judge is at least `quality`, if that
      is given.

    Where all were asked and nothing is, the majority stands; without one, `end` says what does: a model
    (`judge`, by default the heaviest that answered) reads all answers whole and decides, or ``"last"``: the
    answer of the last model that was asked. `ultra eval --fit` finds `threshold`, `quality` and `order`.

    Raises:
        BadCall: an option is not allowed.
    """

    first: int = 2
    order: tuple[str, ...] | None = None
    threshold: float = 0.6
    quality: float | None = None
    test: Verify | None = None
    end: CascadeEnd = "judge"
    judge: str | None = None

    def __post_init__(self) -> None:
        check_count("first", self.first)
        check_names("order", self.order)
        check_number("threshold", self.threshold, most=1.0)
        check_number("quality", self.quality, most=1.0, optional=True)
        if self.test is not None and not callable(self.test):
            raise BadCall(f"test is {self.test!r}; it must be a function of an answer's text, or None")
        check_choice("end", self.end, CascadeEnd)
        check_model_name("judge", self.judge)

    def check_models(self, asked: Sequence[str], registered: Collection[str]) -> None:
        """Check the names in the options; see `ChecksModels.check_models`."""
        check_named("order", self.order or (), registered)
        check_named("judge", [self.judge], asked)

    async def run(self, context: RunContext) -> Answer:
        """Ask level by level until an answer is good enough; see `Strategy.run`."""
        responses: list[ModelResponse] = []
        levels = [*self._levels(context)]
        needed = needed_of(context)
        last: Sequence[ModelResponse] = ()
        tested: dict[str, float] = {}
        for number, level in enumerate(levels):
            name, number_of_step = ("escalation", number - 1) if number else ("initial", 0)
            seconds, is_last = context.time_left(KEPT_FOR_DECISION), number == len(levels) - 1
            with context.step(name, number_of_step) as step:
                found = await context.ask_all(
                    context.request,
                    models=level,
                    # A model that hangs must not take the time of those who would answer.
                    within=seconds / 2 if seconds is not None and not is_last else seconds,
                    required=is_last and not responses,
                )
                if found and self.quality is not None and self.test is None:
                    found = await context.score(found)
            last = found or last
            responses = _by_weight(context, [*responses, *found])
            if step.left_out:
                break
            if self.test is not None:
                tested |= {_name(each): verified(context, self.test, each) for each in found}
            answer = await self._accepted(context, responses, tested)
            if answer is not None and len({each.model_name for each in responses}) >= needed:
                return answer
        check_quorum(context, responses)
        return await self._settled(context, responses, last, tested)

    def _levels(self, context: RunContext) -> Iterator[Sequence[Model]]:
        """Yield whom to ask together, cheapest first; all at once where all must answer."""
        models = _cheapest_first(context.models, self.order)
        first = len(models) if context.options.quorum == "all" else self.first
        yield models[:first]
        for model in models[first:]:
            yield [model]

    async def _accepted(
        self, context: RunContext, responses: Sequence[ModelResponse], tested: Mapping[str, float]
    ) -> Answer | None:
        """Return the answer that is good enough; None: there is none yet."""
        if self.test is not None:
            least = 1.0 if self.quality is None else self.quality
            passed, highest = _best_tested(responses, tested)
            if not highest or highest < least:
                return None
            return Answer(context.best(passed), "selected", highest, "verifier")
        standing = await _most_votes(context, responses)
        if standing is not None:
            answer, share, givers = standing
            # An answer that was given once is not agreed on, however heavy its model is.
            if share < self.threshold or givers < _FEWEST or not self._is_graded_well(answer):
                return None
            return Answer(answer, "selected", share, "votes")
        best = context.best(responses) if responses and self.quality is not None else None
        if best is None or best.quality is None or not self._is_graded_well(best):
            return None
        return Answer(best, "selected", best.quality, "quality")

    def _is_graded_well(self, answer: ModelResponse) -> bool:
        return self.quality is None or answer.quality is None or answer.quality >= self.quality

    async def _settled(
        self,
        context: RunContext,
        responses: Sequence[ModelResponse],
        last: Sequence[ModelResponse],
        tested: Mapping[str, float],
    ) -> Answer:
        """Return what stands where all were asked, and nothing was good enough."""
        answer = only_answer(context, responses, "a comparison")
        if answer is not None:
            return answer
        if self.test is not None:
            context.degrade("no answer passed the test; the best one stands in its place")
            best, highest = _best_tested(responses, tested)
            if not highest:
                return Answer(context.best(best), "best_candidate")
            return Answer(context.best(best), "best_candidate", highest, "verifier")
        standing = await _most_votes(context, responses)
        if standing is not None and standing[1] > _HALF:
            return Answer(standing[0], "selected", standing[1], "votes")
        if self.end == "last" and last:
            context.note(f"no answer was good enough: that of {last[0].model_name!r}, asked last, stands")
            return Answer(last[0], "selected")
        context.note("no answer was good enough: a model read the whole answers and decided")
        return await read_and_decide(context, responses, judge=self.judge)


def _cheapest_first(models: Sequence[Model], order: Sequence[str] | None) -> list[Model]:
    if order is not None:
        place = {name: number for number, name in enumerate(order)}
        return sorted(models, key=lambda model: place.get(model.name, len(place)))
    prices = {model.name: model.price for model in models}
    known = {name: price.input + price.output for name, price in prices.items() if price is not None}
    if len(known) == len(prices):
        return sorted(models, key=lambda model: known[model.name])
    return sorted(models, key=lambda model: model.weight)


def _by_weight(context: RunContext, responses: Sequence[ModelResponse]) -> list[ModelResponse]:
    rank = {model.name: number for number, model in enumerate(context.models)}
    return sorted(responses, key=lambda response: (rank[response.model_name], response.sample))


def _best_tested(
    responses: Sequence[ModelResponse], tested: Mapping[str, float]
) -> tuple[list[ModelResponse], float]:
    """Return the answers that the test finds best, and what it says of them."""
    highest = max((tested[_name(each)] for each in responses), default=0.0)
    return [each for each in responses if tested[_name(each)] == highest], highest


def _name(response: ModelResponse) -> str:
    return sample_name(response.model_name, response.sample)


async def _most_votes(
    context: RunContext, responses: Sequence[ModelResponse]
) -> tuple[ModelResponse, float, int] | None:
    """Return the answer with most votes, its share, and how many are the same.

    None: final answers cannot be counted.
    """
    if len(responses) < _FEWEST:
        return None
    agreed = await context.agree(responses)
    if not agreed.counted:
        return None

    def share(response: ModelResponse) -> float:
        name = _name(response)
        return agreed.votes[name] if agreed.finals[name] is not None else 0.0

    best = max(responses, key=share)
    final = agreed.finals[_name(best)]
    return best, min(1.0, share(best)), list(agreed.finals.values()).count(final)
