"""What a run has used: the sum over all its calls, hidden ones and failed ones too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ultra.messages.results import Usage

if TYPE_CHECKING:
    from ultra.messages.results import OrchestrationResult

__all__ = ["total_usage", "usage_as_openai"]


def total_usage(result: OrchestrationResult) -> Usage:
    """Return the tokens of all answers and failures of a run; what came from the cache used none."""
    total = Usage()
    for step in result.steps:
        for response in step.responses:
            if not response.cached:
                total = total.plus(response.usage).plus(response.lost_usage)
    for failure in result.failures:
        total = total.plus(failure.usage)
    return total


def usage_as_openai(usage: Usage) -> dict[str, Any]:
    """Return it in the form of OpenAI's chat completions."""
    return {
        "prompt_tokens": usage.input or 0,
        "completion_tokens": usage.output or 0,
        "total_tokens": usage.total,
        "prompt_tokens_details": {"cached_tokens": usage.cached or 0},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning or 0},
    }
