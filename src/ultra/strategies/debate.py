"""Debate: the models revise their answers after reading those of all; then a vote or a judge decides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from msgspec import Struct

from ultra._support.checks import check_choice, check_count
from ultra.prompts.composing import Task
from ultra.strategies.panel import (
    check_answered,
    check_model_name,
    check_named,
    only_answer,
    read_and_decide,
    unanimous_answer,
)
from ultra.strategies.vote import settle_vote

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from ultra.messages.results import ModelResponse
    from ultra.strategies.base import Answer, RunContext

__all__ = ["Debate", "DebateEnd"]

DebateEnd = Literal["vote", "judge"]
"""Who decides after the last round: a vote over the answers, or a model that reads them."""

_REVISE: Final = Task(
    role="You take part in a debate about the user's question; one of the candidate answers is your own.",
    rules=(
        "Check each candidate's reasoning. Where candidates differ, find out who is right, and do not give "
        "in to a majority without a reason. Then write your whole answer, in the form that the question asks "
        "for. Do not mention the candidates."
    ),
    request="Write your answer, revised where others convinced you, to the question:",
    answers=True,
)


class Debate(Struct, frozen=True, kw_only=True):
    """Let all models answer, revise for up to `rounds` rounds after reading all answers, and then decide.

    After Du et al., "Improving Factuality and Reasoning through Multiagent Debate" (2023). Nobody knows who
    wrote what. As soon as all mark the same final answer, it stands. A model that fails in a round keeps its
    earlier answer. `end` is ``"vote"``, or ``"judge"``: a model (`judge`, by default the heaviest that
    answered) reads the last answers and decides; so it is, too, where the vote has no majority. Most of what
    a debate gains, a vote gains alone (arXiv:2508.17536).

    Raises:
        BadCall: an option is not allowed.
    """

    rounds: int = 2
    end: DebateEnd = "vote"
    judge: str | None = None

    def __post_init__(self) -> None:
        check_count("rounds", self.rounds)
        check_choice("end", self.end, DebateEnd)
        check_model_name("judge", self.judge)

    def check_models(self, asked: Sequence[str], registered: Collection[str]) -> None:  # noqa: ARG002 - as all have it
        """Check the names in the options; see `ChecksModels.check_models`."""
        check_named("judge", [self.judge], asked)

    async def run(self, context: RunContext) -> Answer:
        """Ask, let the models revise, and decide; see `Strategy.run`."""
        parts = self.rounds + 2
        with context.step("initial"):
            responses = await context.ask_all(context.request, within=context.time_left((parts - 1) / parts))
        check_answered(context, responses)
        for number in range(self.rounds):
            answer = only_answer(context, responses, "a debate") or await unanimous_answer(context, responses)
            if answer is not None:
                return answer
            answered = {response.model_name for response in responses}
            with context.step("debate", number):
                revised = await context.ask_all(
                    context.compose(_REVISE, responses),
                    models=[model for model in context.models if model.name in answered],
                    within=context.time_left((self.rounds - number) / parts),
                    required=False,
                )
            responses = _latest(responses, revised)
        answer = await unanimous_answer(context, responses)
        if answer is not None:
            return answer
        if self.end == "judge":
            return await read_and_decide(context, responses, judge=self.judge)
        weights = {model.name: model.weight for model in context.models}
        if not any(weights[response.model_name] for response in responses):
            weights = dict.fromkeys(weights, 1.0)
        return await settle_vote(context, responses, weights, "majority", judge=self.judge)


def _latest(before: Sequence[ModelResponse], revised: Sequence[ModelResponse]) -> list[ModelResponse]:
    """Return the answers with the revised ones in the place of those of the same model and sample."""
    fresh = {(response.model_name, response.sample): response for response in revised}
    return [fresh.get((response.model_name, response.sample), response) for response in before]
