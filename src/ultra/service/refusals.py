"""A run that no model wanted to answer: it has failed, and clients are told of it as their provider would.

A protocol has its own words for a refusal, which its clients know; an error of HTTP would be none of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from ultra.errors import QuorumNotReached, SubmittedRunFailed
from ultra.messages.results import ModelResponse, OrchestrationResult, Step

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ultra.messages.results import ModelFailure, Refusal
    from ultra.service.ledger import Ledger

__all__ = ["Refused", "refused_by_all", "words_of_refusal"]


class Refused(NamedTuple):
    """A run that was refused. `failure` is that of the model whose refusal is told."""

    failure: ModelFailure
    refusal: Refusal

    def settled(
        self, run_id: str, ledger: Ledger, strategy: str
    ) -> tuple[OrchestrationResult, ModelResponse]:
        """Return what the run has come to, with all that it has used, and the refusal as an answer.

        `strategy` is the name of its strategy.
        """
        failure = self.failure
        answer = ModelResponse(
            model_name=failure.model_name,
            stage=failure.stage,
            sample=failure.sample,
            content=self.refusal.begun,
            attempts=failure.attempts,
            finish_reason=self.refusal.reason,
        )
        steps = [
            Step(name=name, round=number, responses=tuple(answers))
            for (name, number), answers in ledger.answers.items()
        ]
        costs = [each.cost for step in steps for each in step.responses]
        costs += [each.cost for each in ledger.failures]
        result = OrchestrationResult(
            run_id=run_id,
            prompt="",
            strategy=strategy,
            status="degraded",
            steps=steps,
            failures=ledger.failures,
            response_time=max(each.response_time for each in ledger.failures),
            cost=None if all(cost is None for cost in costs) else sum(cost or 0.0 for cost in costs),
        )
        return result, answer


class MayBeRefused(Protocol):
    """A run that may have been refused."""

    @property
    def refused(self) -> Refused | None:
        """How its models refused, if that is why it failed."""
        ...


def refused_by_all(error: Exception, ledger: Ledger, asked: Sequence[str]) -> Refused | None:
    """Return the refusal to tell if all models of the step that failed have refused; None: they have not.

    Of several, it is that of the model which is first among those `asked`, if possible one with words.
    """
    failures = ledger.failures
    stage = _failed_stage(error, ledger)
    refused = [
        Refused(each, each.refusal) for each in failures if each.stage == stage and each.refusal is not None
    ]
    if not refused or len(refused) < sum(each.stage == stage for each in failures):
        return None
    places = {name: number for number, name in enumerate(asked)}
    return min(
        refused, key=lambda each: (not each.refusal.words, places.get(each.failure.model_name, len(places)))
    )


def _failed_stage(error: Exception, ledger: Ledger) -> str | None:
    """Return the step in which nobody answered, and which the run needed; None: it failed otherwise."""
    if isinstance(error, QuorumNotReached):
        return None if error.answered else error.stage
    if not (isinstance(error, SubmittedRunFailed) and error.code == QuorumNotReached.__name__):
        return None
    stage = ledger.failures[-1].stage if ledger.failures else None
    return None if any(name == stage for name, _ in ledger.answers) else stage


def words_of_refusal(run: MayBeRefused) -> str | None:
    """Return what was said of the refusal of this run; None: nothing, or it was not refused."""
    return None if run.refused is None else run.refused.refusal.words
