"""Every model ranks the answers of the others, behind neutral labels; the Borda count decides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

from ultra._support.checks import check_count
from ultra.messages.results import sample_name
from ultra.scoring.rankings import RANK, borda, read_ranking
from ultra.strategies.base import Answer
from ultra.strategies.panel import (
    check_answered,
    check_model_name,
    check_named,
    check_names,
    only_answer,
    unanimous_answer,
    with_first,
    writers_of,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from ultra.messages.results import ModelResponse
    from ultra.strategies.base import Model, RunContext

__all__ = ["Rank"]

_FEWEST_TO_RANK: Final = 2
_KEPT_FOR_RANKING: Final = 0.3
_KEPT_FOR_SYNTHESIS: Final = 0.25


class Rank(Struct, frozen=True, kw_only=True):
    """Ask all models, let each rank the answers of the others, and take the answer with the best places.

    No ranker sees its own answer, or who wrote what: labels are neutral, and the order differs from ranker to
    ranker. `rankers` are the models that rank, by default those that answered. The score of an answer is its
    mean Borda score, by the weight of the rankers; of equals, the one on whose final answer most agree, then
    that of the heavier model. A malformed ranking is repaired or dropped, and a notice says so. With `top`
    above 1, the best so many answers are merged by `writer`, by default the heaviest model that answered.
    Where all models mark the same final answer, it stands unranked; where too few answers are there to be
    ranked by others, the one that agrees best stands. `confidence` is the score of the winner.

    Raises:
        BadCall: an option is not allowed.
    """

    top: int = 1
    rankers: tuple[str, ...] | None = None
    writer: str | None = None

    def __post_init__(self) -> None:
        check_count("top", self.top)
        check_names("rankers", self.rankers)
        check_model_name("writer", self.writer)

    def check_models(self, asked: Sequence[str], registered: Collection[str]) -> None:  # noqa: ARG002 - as all have it
        """Check the names in the options; see `ChecksModels.check_models`."""
        check_named("rankers", self.rankers or (), asked)
        check_named("writer", [self.writer], asked)

    async def run(self, context: RunContext) -> Answer:
        """Ask all, let them rank, and count; see `Strategy.run`."""
        keep = 0.0 if self.top == 1 else _KEPT_FOR_SYNTHESIS
        with context.step("initial"):
            responses = await context.ask_all(
                context.request, within=context.time_left(keep + _KEPT_FOR_RANKING)
            )
        check_answered(context, responses)
        answer = only_answer(context, responses, "a ranking") or await unanimous_answer(context, responses)
        if answer is not None:
            return answer
        scores = await self._scores(context, responses, keep)
        if scores is None:
            return Answer(context.best(responses), "selected")
        votes = (await context.agree(responses)).votes
        order = sorted(
            responses, key=lambda each: (-scores.get(_name(each), 0.0), -votes.get(_name(each), 0.0))
        )
        ranking = {_name(each): min(1.0, scores.get(_name(each), 0.0)) for each in order}
        told = ", ".join(f"{name!r} {score:.2f}" for name, score in ranking.items())
        context.note(f"mean scores of the ranks (Borda, 0 to 1): {told}")
        winner = order[0]
        if self.top == 1:
            return Answer(winner, "selected", ranking[_name(winner)], "ranks", ranking=ranking)
        best = [each for each in responses if each in order[: self.top]]
        models = with_first(context, "writer", self.writer, writers_of(context, responses))
        with context.step("synthesis") as step:
            merged = await context.ask_first(context.compose("synthesis", best), models=models)
        if merged is None:
            failed = "" if step.left_out else "no model could merge the best answers; "
            context.degrade(f"{failed}the one that ranks first stands in their place")
            return Answer(winner, "best_candidate", ranking[_name(winner)], "ranks", ranking=ranking)
        return Answer(merged, "fallback" if step.failures else "primary", ranking=ranking)

    async def _scores(
        self, context: RunContext, responses: Sequence[ModelResponse], keep: float
    ) -> Mapping[str, float] | None:
        """Return the mean Borda score of each answer, by its name; None: there is no usable ranking."""

        def others(model: Model) -> list[ModelResponse]:
            return [response for response in responses if response.model_name != model.name]

        rankers = writers_of(context, responses)
        if self.rankers is not None:
            rankers = [model for model in context.models if model.name in self.rankers]
        rankers = [model for model in rankers if len(others(model)) >= _FEWEST_TO_RANK]
        if not rankers:
            context.note(
                f"{len(responses)} answers are too few to be ranked by models that did not write them; "
                "the one that agrees best with the others stands"
            )
            return None
        with context.step("rank") as step:
            replies = await context.ask_all(
                context.compose(RANK, others),
                models=rankers,
                samples=1,
                within=context.time_left(keep),
                required=False,
            )
        ranked = []
        weights = {model.name: model.weight for model in rankers}
        if not any(weights[reply.model_name] for reply in replies):
            weights = dict.fromkeys(weights, 1.0)
        for reply in replies:
            read = [each for each in responses if each.model_name != reply.model_name]
            labels = context.labels(read)
            ranking = read_ranking(reply.content, [*labels], [each.content for each in read])
            if ranking is None:
                context.degrade(f"what {reply.model_name!r} wrote is no ranking; it does not count")
                continue
            if ranking.repaired:
                context.note(
                    f"the ranking of {reply.model_name!r} named some answers twice or not at all, and was "
                    "repaired: what it did not name shares the last place"
                )
            places = [[_name(labels[label]) for label in place] for place in ranking.places]
            ranked.append((places, weights[reply.model_name]))
        if not ranked and not step.left_out:
            context.degrade("there is no usable ranking; the answer that agrees best with the others stands")
        return borda(ranked) or None


def _name(response: ModelResponse) -> str:
    return sample_name(response.model_name, response.sample)
