"""Majority vote over the final answers (self-consistency, Wang et al., 2022, over several models)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from ultra._support.checks import check_choice, check_flag, check_number, shown
from ultra.errors import BadCall
from ultra.strategies.ballots import Ballot, Rule, Voting, final_answers, tally
from ultra.strategies.base import Answer
from ultra.strategies.panel import check_model_name, check_named, only_answer, read_and_decide

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from ultra.messages.results import ModelResponse
    from ultra.strategies.base import RunContext

__all__ = ["Vote", "settle_vote"]


class Vote(Struct, frozen=True, kw_only=True):
    """Take the final answer that most of the weight stands for, word for word.

    The models are asked in the order of their weights, no more at a time than could settle the outcome: of
    three equal ones two, and the third only if these differ. Who cannot change the outcome is not asked. With
    `at_once`, all are asked side by side, and those that are needless are cancelled: faster, and dearer.

    `weights` are the weights of the votes by the names of the models, in place of those of the models: the
    log-odds of being right (`ultra.scoring.vote_weights`) are the best ones for models that err independently
    (Nitzan and Paroush, 1982). A model of weight 0 is asked only if there would be no vote without it.
    `rule`: ``"majority"``: more than half of the weight that answered; ``"plurality"``: the most. Where
    nothing wins, or no final answer can be read, `judge`, by default the model of highest weight that
    answered, reads all answers whole and decides; a notice says so. `confidence` is the share of the winner.

    Raises:
        BadCall: an option is not allowed.
    """

    weights: dict[str, float] | None = None
    rule: Rule = "majority"
    judge: str | None = None
    at_once: bool = False

    def __post_init__(self) -> None:
        weights: object = self.weights
        if weights is not None:
            if not isinstance(weights, dict) or not all(isinstance(name, str) for name in weights):
                raise BadCall(
                    f"weights is {shown(weights)}; it must be a mapping from models to numbers, or None"
                )
            for name, weight in weights.items():
                check_number(f"the weight of {name!r}", weight)
            if not any(weights.values()):
                raise BadCall("weights are all 0; one vote at least must count")
        check_choice("rule", self.rule, Rule)
        check_model_name("judge", self.judge)
        check_flag("at_once", self.at_once)

    def check_models(self, asked: Sequence[str], registered: Collection[str]) -> None:
        """Check the names in the options; see `ChecksModels.check_models`."""
        check_named("judge", [self.judge], asked)
        if self.weights is None:
            return
        check_named("weights", self.weights, registered)
        missing = [name for name in asked if name not in self.weights]
        if missing:
            raise BadCall(f"weights has none for {missing[0]!r}, which this run asks; give it one, such as 0")

    async def run(self, context: RunContext) -> Answer:
        """Ask in order until the outcome is certain, count, and settle; see `Strategy.run`."""
        weights = self._weights(context)
        ballots = [
            Ballot(model, sample, weights[model.name])
            for model in sorted(context.models, key=lambda model: -weights[model.name])
            for sample in range(context.options.samples)
        ]
        ballots.sort(key=lambda ballot: (-ballot.weight, ballot.sample))
        with context.step("initial") as step:
            voting = Voting(context, step, ballots, self.rule, at_once=self.at_once)
            while asked := voting.next():
                voting.take(await context.ask_all(context.request, **asked))
            answers = voting.answers()
        return await settle_vote(context, answers, weights, self.rule, judge=self.judge)

    def _weights(self, context: RunContext) -> Mapping[str, float]:
        """The weights of the votes; where all are 0, every model has one."""
        if self.weights is not None:
            given = {model.name: float(self.weights.get(model.name, 0.0)) for model in context.models}
        else:
            given = {model.name: model.weight for model in context.models}
        return given if any(given.values()) else dict.fromkeys(given, 1.0)


async def settle_vote(
    context: RunContext,
    responses: Sequence[ModelResponse],
    weights: Mapping[str, float],
    rule: Rule,
    *,
    judge: str | None = None,
) -> Answer:
    """Return the answer that wins the vote, word for word; where none does, what a model decides."""
    answer = only_answer(context, responses, "a vote")
    if answer is not None:
        return answer
    question = context.request.prompt
    counted = tally(responses, weights, question)
    winner = counted.winner(rule)
    if winner is None:
        why = "has no majority" if counted.votes else "found no final answer in what the models wrote"
        context.note(f"the vote {why}: a model read the whole answers and decided")
        return await read_and_decide(context, responses, judge=judge)
    finals = final_answers(responses, question)
    behind = [answer for answer, final in zip(responses, finals, strict=True) if final == winner]
    chosen = max(behind, key=lambda answer: weights[answer.model_name])
    share = counted.votes[winner] / counted.cast
    return Answer(chosen, "selected", min(1.0, share), "votes")
