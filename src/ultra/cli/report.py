"""What is said at the end of a run: a line for each model, and what went otherwise than it should."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ultra.messages.results import ModelResponse, OrchestrationResult

__all__ = ["HEADINGS", "STAGE_TITLES", "ModelLine", "cost", "degradations", "model_lines", "seconds"]

HEADINGS: Final = ("model", "time", "tokens", "attempts", "score")

_SMALLEST_COST: Final = 0.0001
"""Dollars; less than that is shown as such."""

STAGE_TITLES: Final = {"initial": "Answers", "meta": "Analysis", "synthesis": "Synthesis"}


class ModelLine(Struct, frozen=True):
    """One model over all stages; `cells` are texts under `HEADINGS`."""

    cells: tuple[str, ...]
    failed: bool


def model_lines(result: OrchestrationResult) -> list[ModelLine]:
    """One line for each model that was asked, highest weight first."""
    return [_model_line(result, name) for name in result.metrics]


def degradations(result: OrchestrationResult) -> list[str]:
    """Say why the result is degraded, and what else the run did that nobody asked for."""
    stages: dict[str, list[str]] = {}
    for failure in result.failures:
        stages.setdefault(failure.message, []).append(failure.stage)
    reasons = [f"{', '.join(names)}: {message}" for message, names in stages.items()]
    if result.synthesis_source == "fallback" and result.final_synthesis is not None:
        reasons.append(f"synthesis: written by {result.final_synthesis.model_name} in place of who failed")
    return [*reasons, *result.notices]


def cost(result: OrchestrationResult) -> str | None:
    """What the run cost, and whose part in it is not known; None where no model has a price."""
    if result.cost is None:
        return None
    responses = [response for answers in result.stages.values() for response in answers.values()]
    unpriced = dict.fromkeys(each.model_name for each in responses if each.cost is None and not each.cached)
    amount = f"${result.cost:.4f}" if not 0 < result.cost < _SMALLEST_COST else f"less than ${_SMALLEST_COST}"
    return f"{amount}, without {', '.join(unpriced)}" if unpriced else amount


def seconds(value: float) -> str:
    """A time as it is shown everywhere."""
    return f"{value:.1f} s"


def _model_line(result: OrchestrationResult, name: str) -> ModelLine:
    responses = [answers[name] for answers in result.stages.values() if name in answers]
    failures = [failure for failure in result.failures if failure.model_name == name]
    attempts = sum(response.attempts for response in responses) + sum(each.attempts for each in failures)
    scores = [response.quality for response in responses if response.quality is not None]
    cells = (
        name,
        seconds(sum(response.response_time for response in responses)) if responses else "-",
        _tokens(responses),
        str(attempts),
        f"{scores[0]:.2f}" if scores else "failed" if failures else "-",
    )
    return ModelLine(cells, bool(failures))


def _tokens(responses: Iterable[ModelResponse]) -> str:
    """The tokens that were written, with a ~ where some of them were estimated."""
    counts = [response.usage.output for response in responses if response.usage.output is not None]
    estimated = any(response.usage.estimated for response in responses)
    return f"{'~' if estimated else ''}{sum(counts)}" if counts else "-"
