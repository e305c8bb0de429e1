"""Several samples of one model, and the vote over them: the honest baseline at equal cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from ultra._support.checks import check_count, check_flag
from ultra.errors import QuorumNotReached
from ultra.strategies.ballots import Ballot, Voting
from ultra.strategies.panel import check_model_name, check_named, with_first
from ultra.strategies.vote import settle_vote

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from ultra.messages.results import ModelResponse
    from ultra.strategies.base import Answer, RunContext

__all__ = ["SelfConsistency"]


class SelfConsistency(Struct, frozen=True, kw_only=True):
    """Ask one model several times, and take the final answer that it gives most often, word for word.

    After Wang et al., "Self-Consistency Improves Chain of Thought Reasoning" (2022). `model` is its name, by
    default that of highest weight; where it gives no answer at all, the next by weight stands in for it, and
    the result is degraded. `samples` is how often it is asked, unless the run itself says that (`samples=`,
    above 1). It is asked no more often at a time than could settle the outcome (as in arXiv:2604.02863), but
    with `at_once`. A model that always writes the same needs a temperature.

    Raises:
        BadCall: an option is not allowed.
    """

    samples: int = 5
    model: str | None = None
    at_once: bool = False

    def __post_init__(self) -> None:
        check_count("samples", self.samples)
        check_model_name("model", self.model)
        check_flag("at_once", self.at_once)

    def check_models(self, asked: Sequence[str], registered: Collection[str]) -> None:  # noqa: ARG002 - as all have it
        """Check the names in the options; see `ChecksModels.check_models`."""
        check_named("model", [self.model], asked)

    async def run(self, context: RunContext) -> Answer:
        """Ask one model until the outcome is certain, and count; see `Strategy.run`."""
        responses: list[ModelResponse] = []
        samples = context.options.samples if context.options.samples > 1 else self.samples
        models = with_first(context, "model", self.model, context.models)
        with context.step("initial") as step:
            for number, model in enumerate(models, start=1):
                # A model that hangs must not take the time of those who would answer.
                kept = (context.time_left() or 0.0) / 2 if number < len(models) else 0.0
                ballots = [Ballot(model, sample, 1.0) for sample in range(samples)]
                try:
                    voting = Voting(context, step, ballots, "plurality", at_once=self.at_once, kept=kept)
                    while asked := voting.next():
                        voting.take(await context.ask_all(context.request, **asked))
                    responses = voting.answers()
                except QuorumNotReached:
                    if number == len(models) or context.options.quorum == "all":
                        raise
                    context.degrade(f"{model.name!r} gave no answer; the next model is asked in its place")
                else:
                    break
        weights = {response.model_name: 1.0 for response in responses}
        return await settle_vote(context, responses, weights, "plurality")
