"""The events and the result of a run as the wire may have them: without any words of a provider's errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from msgspec.structs import replace

from ultra.messages.events import ModelFailed, ModelRetrying, RunCompleted, RunFailed
from ultra.service.event_stream import named_event

if TYPE_CHECKING:
    from ultra.messages.events import Event
    from ultra.messages.results import ModelFailure, OrchestrationResult
    from ultra.service.problems import Problem

__all__ = ["LINES", "as_lines", "as_sse", "cleaned_result", "without_words"]

LINES: Final = "application/jsonl; charset=utf-8"
"""The type of events as lines of JSON."""

_JUDGE: Final = " gave no scores: "

_encode: Final = msgspec.json.Encoder().encode


def cleaned_result(result: OrchestrationResult) -> OrchestrationResult:
    """Return a result whose failures and notices tell the kinds of errors, and not their words."""
    return replace(
        result,
        failures=[_cleaned_failure(failure) for failure in result.failures],
        notices=[
            notice.partition(_JUDGE)[0] + (" gave no scores" if _JUDGE in notice else "")
            for notice in result.notices
        ],
    )


def without_words(event: Event, problem: Problem | None = None) -> Event:
    """Return an event for the wire; `problem` is what is told of a run that failed."""
    match event:
        case ModelFailed():
            return replace(event, failure=_cleaned_failure(event.failure))
        case ModelRetrying():
            return replace(event, message=_words(event.kind))
        case RunCompleted():
            return replace(event, result=cleaned_result(event.result))
        case RunFailed():
            return replace(event, message="the run failed" if problem is None else problem.message)
        case _:
            return event


def as_sse(event: Event) -> bytes:
    """Return it as a server-sent event, whose name is its type."""
    return named_event(str(type(event).__struct_config__.tag), event)


def as_lines(event: Event) -> bytes:
    """Return it as a line of JSON."""
    return _encode(event) + b"\n"


def _cleaned_failure(failure: ModelFailure) -> ModelFailure:
    return replace(failure, message=f"{failure.model_name}: {_words(failure.kind or failure.error)}")


def _words(kind: str) -> str:
    return f"the call failed ({kind})"
