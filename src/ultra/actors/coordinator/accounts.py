"""What a run has used, by its answers and failures, and what is told of answers that are not whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ultra.actors.coordinator.messages import Target
    from ultra.actors.coordinator.steps import Steps
    from ultra.messages.results import ModelFailure, ModelMetrics, ModelResponse

__all__ = ["Accounts", "cut_answers", "unfinished"]


class Accounts:
    """What one run has used so far: by the answers of its `steps`, its `failures`, and what neither tells.

    Attributes:
        failures: those of models, in their order.
        other_cost: dollars of the judge's grades, and of calls that became needless; None: not known.
    """

    def __init__(self, steps: Steps, targets: Sequence[Target]) -> None:
        self.failures: list[ModelFailure] = []
        self.other_cost: float | None = None
        self._steps = steps
        self._targets = targets

    def pay(self, cost: float | None) -> None:
        """Count dollars that neither an answer nor a failure tells."""
        if cost is not None:
            self.other_cost = (self.other_cost or 0.0) + cost

    def cost(self) -> float:
        """Return the dollars so far, as far as they are known."""
        return _total_cost(self._steps.responses(), self.failures) + (self.other_cost or 0.0)

    def spent(self) -> tuple[int, float | None]:
        """Return the tokens and the dollars so far; None: no price is known."""
        priced = any(target.model.price is not None for target in self._targets)
        cost = self.cost() if priced or self.other_cost is not None else None
        return _total_tokens(self._steps.responses(), self.failures), cost

    def metrics(self) -> dict[str, ModelMetrics]:
        """Return the metrics of each model, with what is of this run alone."""
        answers: dict[str, list[ModelResponse]] = {target.name: [] for target in self._targets}
        for response in self._steps.responses():
            answers[response.model_name].append(response)
        return {target.name: target.model.metrics.of_run(answers[target.name]) for target in self._targets}


def _total_cost(responses: Iterable[ModelResponse], failures: Iterable[ModelFailure]) -> float:
    """Return the dollars of answers and failures, as far as they are known."""
    paid = sum(response.cost or 0.0 for response in responses)
    return paid + sum(failure.cost or 0.0 for failure in failures)


def _total_tokens(responses: Iterable[ModelResponse], failures: Iterable[ModelFailure]) -> int:
    """Return the tokens of answers and failures, as far as they were counted; the cache uses none."""
    tokens = 0
    for response in responses:
        if not response.cached:
            tokens += response.usage.total + (0 if response.lost_usage is None else response.lost_usage.total)
    return tokens + sum([failure.usage.total for failure in failures if failure.usage is not None])


def unfinished(answer: ModelResponse) -> str:
    """Return the notice of a final answer that is not whole."""
    advice = "; allow more with options={'max_tokens': …}" if answer.finish_reason == "length" else ""
    return f"the answer of {answer.model_name!r} {answer.not_whole_because} and is not whole{advice}"


def cut_answers(stage: str, cut: Sequence[ModelResponse], *, used: bool) -> str:
    """Return the notice of answers of a stage that are not whole; `used`: they stand all the same."""
    names = ", ".join(dict.fromkeys(repr(response.model_name) for response in cut))
    at_limit = all(response.finish_reason == "length" for response in cut)
    ended = "stopped at their limit of tokens" if at_limit else "ended before they were done"
    rest = "are not whole; no other is there to be used" if used else "do not count"
    return f"stage {stage!r}: the answers of {names} {ended} and {rest}"
