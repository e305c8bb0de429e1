"""The report at the end of a run: a line for each model, what failed, and what it cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

from ultra.cli.printable_text import one_line
from ultra.messages.results import sample_name

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from ultra.messages.results import ModelFailure, ModelResponse, OrchestrationResult

__all__ = [
    "CUT_OFF",
    "HIDDEN",
    "REASONING",
    "ModelLine",
    "answer_name",
    "answer_text",
    "confidence",
    "cost",
    "degradations",
    "dollars",
    "headings",
    "is_hidden",
    "model_lines",
    "seconds",
    "step_name",
    "step_title",
    "summary",
    "unshown_answer",
]

CUT_OFF: Final = "cut off"
"""How an answer is marked that its model did not write to its end."""

HIDDEN: Final[Mapping[str, str]] = {"analysis": "meta"}
"""The steps that are folded into one line, by the word of `--show` that unfolds them."""

REASONING: Final = "reasoning"
"""The word of `--show` that shows what the models thought."""

_HEADINGS: Final = ("model", "time", "tokens", "calls")

_SMALLEST_COST: Final = 0.0001
"""Dollars; a lower cost is shown as "less than" this."""

_MOST_OF_NAMES: Final = 40
"""Characters of the names of models without a price in the last line; of longer ones, it has the number."""

_HALF: Final = 0.5

_TITLES: Final = {
    "initial": "Answers",
    "meta": "Analysis",
    "synthesis": "Synthesis",
    "tools": "Tools",
    "rank": "Ranking",
    "judge": "Grades",
    "escalation": "Escalation",
    "layer": "Layer",
    "debate": "Debate",
    "route": "Choice of models",
}


class ModelLine(Struct, frozen=True):
    """One model over all steps; `cells` are the texts under `headings`."""

    cells: tuple[str, ...]
    failed: bool


def model_lines(result: OrchestrationResult) -> list[ModelLine]:
    """Return a line for each model that the run could ask, highest weight first."""
    last = len(headings(result)) > len(_HEADINGS)
    return [_model_line(result, name, last=last) for name in result.metrics]


def headings(result: OrchestrationResult) -> tuple[str, ...]:
    """Return the headings of the lines. The last is what scores are, if there are scores or failures."""
    if result.quality_basis is not None:
        return (*_HEADINGS, "grade" if result.quality_basis == "grade" else "agreement")
    if any(response.quality is not None for step in result.steps for response in step.responses):
        return (*_HEADINGS, "score")
    return (*_HEADINGS, "outcome") if result.failures else _HEADINGS


def step_name(name: str, number: int) -> str:
    """Return the name of a step; with its round, if it is not the first step of that name."""
    return one_line(name) + (f", round {number + 1}" if number else "")


def step_title(name: str, number: int) -> str:
    """Return the title of a step: the name of a stage in words, or the name of any other step."""
    return step_name(_TITLES.get(name, name), number)


def answer_name(response: ModelResponse) -> str:
    """Return the name of an answer: that of its model, with the number of its sample after the first."""
    return sample_name(response.model_name, response.sample)


def unshown_answer(result: OrchestrationResult) -> ModelResponse | None:
    """Return the answer of the run, unless it is the only answer of the last step; None if there is none."""
    answer = result.final_synthesis
    last = result.steps[-1].responses if result.steps else ()
    if answer is None or (len(last) == 1 and answer_text(last[0]) == answer_text(answer)):
        return None
    return answer


def answer_text(response: ModelResponse) -> str:
    """Return what an answer says, and which tools it calls."""
    calls = [f"calls {call}" for call in response.tool_calls]
    return "\n".join([response.content, *calls] if response.content else calls)


def degradations(result: OrchestrationResult) -> list[str]:
    """Return the reasons why the result is degraded, and the notices of the run."""
    steps: dict[str, dict[str, None]] = {}
    for failure in result.failures:
        steps.setdefault(failure.message, {})[failure.stage] = None
    reasons = [f"{', '.join(names)}: {message}" for message, names in steps.items()]
    if result.synthesis_source == "fallback" and result.final_synthesis is not None:
        writer = result.final_synthesis.model_name
        reasons.append(f"answer: written by {writer} in place of a model that failed")
    return [*reasons, *result.notices]


def cost(result: OrchestrationResult) -> str | None:
    """Return what the run cost, and of which models this is not known; None if nothing was asked."""
    responses = [response for step in result.steps for response in step.responses]
    unknown = [each.model_name for each in responses if each.cost is None and not each.cached]
    unknown += [each.model_name for each in result.failures if each.cost is None and each.usage is not None]
    unpriced = list(dict.fromkeys(unknown))
    names = ", ".join(unpriced)
    if len(unpriced) > 1 and len(names) > _MOST_OF_NAMES:
        names = f"{len(unpriced)} models"
    parts = [] if result.cost is None else [dollars(result.cost)]
    parts += [f"cost unknown for {names}"] if unpriced else []
    return ", ".join(parts) or None


def dollars(amount: float) -> str:
    """Return an amount of money as it is shown."""
    if amount == 0:
        return "$0"
    return f"${amount:.4f}" if amount >= _SMALLEST_COST else f"less than ${_SMALLEST_COST}"


def confidence(result: OrchestrationResult) -> str | None:
    """Return how sure the run is of its answer; None if it has none, does not tell, or there is one alone."""
    if result.confidence is None or result.has_one_answer:
        return None
    split = result.confidence_basis == "votes" and result.confidence < _HALF
    return f"{result.confidence:.2f}{', most answers differ from it' if split else ''}"


def summary(result: OrchestrationResult) -> str:
    """Return the last line of a run: how it went, its time, its cost, and how sure it is."""
    spent, amount, sure = seconds(result.response_time), cost(result), confidence(result)
    told = spent
    if amount is not None:
        told += f"{', ' if result.cost is None else ' for '}{one_line(amount)}"
    if sure is not None:
        told += f", confidence {sure}"
    return f"Degraded answer, in {told}" if result.status == "degraded" else f"Done in {told}"


def is_hidden(step: str, shown: Collection[str]) -> bool:
    """Return whether a step of this name is shown only on demand, and is not among those demanded."""
    return step in HIDDEN.values() and not any(HIDDEN.get(each) == step for each in shown)


def seconds(value: float) -> str:
    """Return a time as it is shown: seconds with one digit."""
    return f"{value:.1f} s"


def _model_line(result: OrchestrationResult, name: str, *, last: bool) -> ModelLine:
    responses = [each for step in result.steps for each in step.responses if each.model_name == name]
    failures = [failure for failure in result.failures if failure.model_name == name]
    scores = [response.quality for response in responses if response.quality is not None]
    cells = (
        name,
        seconds(sum(response.response_time for response in responses)) if responses else "-",
        _tokens(responses, failures),
        _calls([*responses, *failures]),
    )
    outcome = f"{sum(scores) / len(scores):.2f}" if scores else "failed" if failures else "-"
    return ModelLine((*cells, outcome) if last else cells, bool(failures))


def _calls(asked: Iterable[ModelResponse | ModelFailure]) -> str:
    """Return how often the model was called, and how many calls were repeated after a failed attempt."""
    attempts = [each.attempts for each in asked if each.attempts]
    retries = sum(attempts) - len(attempts)
    retried = f" + {retries} {'retry' if retries == 1 else 'retries'}" if retries else ""
    return f"{len(attempts)}{retried}"


def _tokens(responses: Iterable[ModelResponse], failures: Iterable[ModelFailure]) -> str:
    """Return the tokens that were written, in failed attempts, too, with a ~ if some are estimated."""
    usages = [usage for each in responses for usage in (each.usage, each.lost_usage)]
    known = [usage for usage in (*usages, *(each.usage for each in failures)) if usage is not None]
    counts = [usage.output for usage in known if usage.output is not None]
    estimated = any(usage.estimated for usage in known)
    return f"{'~' if estimated else ''}{sum(counts)}" if counts else "-"
