"""What a run has used, by its answers and failures, and what is told of answers that are not whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ultra.messages.results import ModelFailure, ModelResponse

__all__ = ["cut_answers", "total_cost", "total_tokens", "unfinished"]


def total_cost(responses: Iterable[ModelResponse], failures: Iterable[ModelFailure]) -> float:
    """Return the dollars of answers and failures, as far as they are known."""
    paid = sum(response.cost or 0.0 for response in responses)
    return paid + sum(failure.cost or 0.0 for failure in failures)


def total_tokens(responses: Iterable[ModelResponse], failures: Iterable[ModelFailure]) -> int:
    """Return the tokens of answers and failures, as far as they were counted; the cache uses none."""
    called = [response for response in responses if not response.cached]
    usages = [usage for response in called for usage in (response.usage, response.lost_usage)]
    usages += [failure.usage for failure in failures]
    return sum(usage.total for usage in usages if usage is not None)


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
