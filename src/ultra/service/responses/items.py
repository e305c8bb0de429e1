"""The response object and its items, as they are in answers and in events."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Literal

from ultra.service.extension import summary
from ultra.service.reasoning import sealed
from ultra.service.refusals import words_of_refusal
from ultra.service.usage import total_usage

if TYPE_CHECKING:
    from ultra.messages.chat import ReasoningPart, ToolCall
    from ultra.messages.results import ModelResponse, OrchestrationResult, Usage
    from ultra.service.problems import Problem
    from ultra.service.responses.shape import ResponseShape, RunOfResponse

__all__ = [
    "call_item",
    "ended",
    "failed",
    "message_id",
    "message_item",
    "message_parts",
    "panel_item",
    "reasoning_item",
    "refusal_part",
    "response_object",
    "status_of",
    "summary_part",
    "text_part",
    "whole_output",
]

Status = Literal["in_progress", "completed", "incomplete"]


def response_object(shape: ResponseShape, run: RunOfResponse, **changed: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return the response of a run under way, with the fields that have `changed`."""
    return {
        "id": f"resp_{run.run_id}",
        "object": "response",
        "created_at": run.created,
        "status": "in_progress",
        "background": shape.background,
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "model": shape.model,
        "output": [],
        "usage": None,
        **shape.echo,
        "store": run.is_kept,
        **changed,
    }


def ended(
    shape: ResponseShape,
    run: RunOfResponse,
    result: OrchestrationResult,
    answer: ModelResponse,
    output: list[dict[str, Any]],
    *,
    at: float | None = None,
) -> dict[str, Any]:
    """Return the response of a run that has given an answer, which may have been cut.

    `at`: when it ended, in seconds of Unix time; None: now.
    """
    status = status_of(answer, run)
    stopped = answer.finish_reason in {"content_filter", "refusal"}
    reason = "content_filter" if stopped else "max_output_tokens"
    more: dict[str, Any] = {}
    if shape.fields is not None:
        more["ultra"] = summary(result, shape.fields, single=shape.is_single)
    return response_object(
        shape,
        run,
        status=status,
        completed_at=int(time.time() if at is None else at) if status == "completed" else None,
        incomplete_details=None if status == "completed" else {"reason": reason},
        output=output,
        usage=_usage(total_usage(result)),
        **more,
    )


def failed(
    shape: ResponseShape, run: RunOfResponse, problem: Problem, output: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return the response of a run that has failed, with what had been said."""
    error: dict[str, Any] = {"code": problem.code or problem.type, "message": problem.message}
    if problem.details:
        error["ultra"] = problem.details
    return response_object(shape, run, status="failed", error=error, output=output)


def status_of(answer: ModelResponse, run: RunOfResponse) -> Literal["completed", "incomplete"]:
    """Return whether an answer is whole; a refusal of the model's, in words, is."""
    if answer.finish_reason == "refusal" and words_of_refusal(run) is not None:
        return "completed"
    return "completed" if answer.finish_reason in {None, "stop", "tool_calls"} else "incomplete"


def text_part(text: str) -> dict[str, Any]:
    """Return a part of a message."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def refusal_part(words: str) -> dict[str, Any]:
    """Return the part of a message that refuses."""
    return {"type": "refusal", "refusal": words}


def message_parts(answer: ModelResponse, run: RunOfResponse) -> list[dict[str, Any]]:
    """Return the parts of the message: its text, and the words by which it is refused."""
    words = words_of_refusal(run)
    if words is None:
        return [text_part(answer.content)]
    return [*([text_part(answer.content)] if answer.content else ()), refusal_part(words)]


def message_id(run: RunOfResponse, number: int = 0) -> str:
    """Return the id of what is said; `number`: how often it was started again."""
    return f"msg_{run.run_id}_{number}" if number else f"msg_{run.run_id}"


def message_item(
    run: RunOfResponse, status: Status, *parts: dict[str, Any], number: int = 0
) -> dict[str, Any]:
    """Return the item of what is said; `number`: how often it was started again."""
    item = {"id": message_id(run, number), "type": "message", "status": status, "role": "assistant"}
    return {**item, "content": list(parts)}


def call_item(run: RunOfResponse, number: int, call: ToolCall) -> dict[str, Any]:
    """Return the item of the call of a tool."""
    return {
        "id": f"fc_{run.run_id}_{number}",
        "type": "function_call",
        "status": "completed",
        "call_id": call.id,
        "name": call.name,
        "arguments": call.arguments,
    }


def summary_part(text: str) -> dict[str, Any]:
    """Return a part of an item of reasoning."""
    return {"type": "summary_text", "text": text}


def reasoning_item(
    run: RunOfResponse, number: int, part: ReasoningPart | None = None, *, encrypted: bool = False
) -> dict[str, Any]:
    """Return the item of what the writer thought; without a `part`, as it is when it begins.

    `encrypted`: it has what the provider of the writer wants back.
    """
    summary = [summary_part(part.text)] if part is not None and part.text else []
    item = {"id": f"rs_{run.run_id}_{number}", "type": "reasoning", "summary": summary}
    return {**item, "encrypted_content": sealed(part)} if part is not None and encrypted else item


def panel_item(
    shape: ResponseShape, run: RunOfResponse, result: OrchestrationResult
) -> dict[str, Any] | None:
    """Return the item that tells of the panel, for those who ask for it."""
    if shape.fields is None or "panel" not in shape.fields.expose:
        return None
    told = summary(result, shape.fields, single=shape.is_single)
    about: dict[str, Any] = {
        name: told[name] for name in ("responses", "failed_models", "analysis") if name in told
    }
    return {"id": f"panel_{run.run_id}", "type": "ultra:panel", "status": "completed", **about}


def whole_output(
    shape: ResponseShape,
    run: RunOfResponse,
    result: OrchestrationResult,
    answer: ModelResponse,
    *,
    number: int = 0,
) -> list[dict[str, Any]]:
    """Return the items of an answer that is told at once; `number`: how often its text was started again."""
    encrypted = shape.includes_encrypted
    parts = enumerate(answer.reasoning_parts)
    output = [reasoning_item(run, at, part, encrypted=encrypted) for at, part in parts]
    if answer.content or not answer.tool_calls:
        said = message_parts(answer, run)
        output.append(message_item(run, status_of(answer, run), *said, number=number))
    output += [call_item(run, *each) for each in enumerate(answer.tool_calls)]
    panel = panel_item(shape, run, result)
    if panel is not None:
        output.append(panel)
    return output


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input or 0,
        "input_tokens_details": {
            "cached_tokens": usage.cached or 0,
            "cache_write_tokens": usage.written or 0,
        },
        "output_tokens": usage.output or 0,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning or 0},
        "total_tokens": usage.total,
    }
