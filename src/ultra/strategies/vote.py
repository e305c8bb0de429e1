"""Majority vote over the final answers (self-consistency, Wang et al., 2022, over several models)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from ultra.messages.canonical_json import canonical_json
from ultra.scoring.final_answers import equal_answers
from ultra.strategies.base import Answer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ultra.messages.results import ModelResponse
    from ultra.strategies.base import RunContext

__all__ = ["Vote"]


class Vote(Struct, frozen=True, kw_only=True):
    """Take the final answer that most of the models' weight stands for, word for word.

    It stops asking as soon as the outcome cannot change. Where no answer has more than half of the weight
    that answered, the model of highest weight among those reads all answers whole and decides.
    `confidence` is the share of the winner.
    """

    async def run(self, context: RunContext) -> Answer:
        """Ask all, count, and settle; see `Strategy.run`."""
        weights = _weights(context)
        expected = sum(weights.values()) * context.options.samples

        def decided(responses: Sequence[ModelResponse]) -> bool:
            leading = max(_count(responses, weights, context.request.prompt).values(), default=0.0)
            return len(responses) > 1 and leading > expected / 2

        with context.step("initial"):
            responses = await context.ask_all(context.request, until=decided)
        votes = _count(responses, weights, context.request.prompt)
        cast = sum(weights[response.model_name] for response in responses)
        winner = max(votes, key=votes.__getitem__, default=None)
        if winner is None or votes[winner] <= cast / 2:
            return await self._decide(context, responses)
        finals = _finals(responses, context.request.prompt)
        chosen = next(response for response, final in zip(responses, finals, strict=True) if final == winner)
        return Answer(chosen, "selected", votes[winner] / cast, "votes")

    async def _decide(self, context: RunContext, responses: Sequence[ModelResponse]) -> Answer:
        context.note("the vote has no majority: a model read the whole answers and decided")
        answered = {response.model_name for response in responses}
        models = [model for model in context.models if model.name in answered]
        with context.step("synthesis") as step:
            decision = await context.ask_first(context.compose("synthesis", responses), models=models)
        if decision is not None:
            return Answer(decision, "fallback" if step.failures else "primary")
        context.degrade("no model could decide; the best candidate stands in its place")
        return Answer(context.best(responses), "best_candidate")


def _weights(context: RunContext) -> Mapping[str, float]:
    """The models' weights; where all are 0, every model has one vote."""
    weights = {model.name: model.weight for model in context.models}
    return weights if any(weights.values()) else dict.fromkeys(weights, 1.0)


def _finals(responses: Sequence[ModelResponse], question: str) -> list[str | None]:
    """What stands for the final answer of each; of structured answers, their JSON."""
    if responses and all(response.output is not None for response in responses):
        return [canonical_json(response.output) for response in responses]
    return equal_answers([response.content for response in responses], question)


def _count(
    responses: Sequence[ModelResponse], weights: Mapping[str, float], question: str
) -> dict[str, float]:
    """The weight behind each final answer, in the order in which they stand."""
    votes: dict[str, float] = {}
    finals = _finals(responses, question)
    for response, answer in zip(responses, finals, strict=True):
        if answer is not None:
            votes[answer] = votes.get(answer, 0.0) + weights[response.model_name]
    return votes
