"""A run that no model wanted to answer: it has failed, and clients are told of it as their provider would.

A protocol has its own words for a refusal, which its clients know; an error of HTTP would be none of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ultra.errors import QuorumNotReached
from ultra.messages.results import ModelResponse, OrchestrationResult, Step
from ultra.strategies.catalog import spec_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ultra.messages.results import ModelFailure, Refusal
    from ultra.service.ledger import Ledger
    from ultra.service.shared_run import SharedRun
    from ultra.strategies.base import Strategy

__all__ = ["Refused", "refused_by_all", "words_of_refusal"]


class Refused(NamedTuple):
    """A run that was refused. `failure` is that of the model whose refusal is told."""

    failure: ModelFailure
    refusal: Refusal

    def settled(
        self, run_id: str, ledger: Ledger, strategy: Strategy
    ) -> tuple[OrchestrationResult, ModelResponse]:
        """Return what the run has come to, with all that it has used, and the refusal as an answer."""
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
            strategy=spec_of(strategy).name,
            status="degraded",
            steps=steps,
            failures=ledger.failures,
            response_time=max(each.response_time for each in ledger.failures),
            cost=None if all(cost is None for cost in costs) else sum(cost or 0.0 for cost in costs),
        )
        return result, answer


def refused_by_all(
    error: Exception, failures: Sequence[ModelFailure], asked: Sequence[str]
) -> Refused | None:
    """Return the refusal to tell if all models of the step that failed have refused; None: they have not.

    Of several, it is that of the model which is first among those `asked`, if possible one with words.
    """
    if not isinstance(error, QuorumNotReached) or error.answered:
        return None
    refused = [
        Refused(each, each.refusal)
        for each in failures
        if each.stage == error.stage and each.refusal is not None
    ]
    if not refused or len(refused) < sum(each.stage == error.stage for each in failures):
        return None
    places = {name: number for number, name in enumerate(asked)}
    return min(
        refused, key=lambda each: (not each.refusal.words, places.get(each.failure.model_name, len(places)))
    )


def words_of_refusal(run: SharedRun) -> str | None:
    """Return what was said of the refusal of this run; None: nothing, or it was not refused."""
    return None if run.refused is None else run.refused.refusal.words
