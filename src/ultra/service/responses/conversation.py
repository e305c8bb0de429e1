"""The conversation that a kept response has: what its run was given, and what came of it."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from ultra.messages.chat import ChatMessage, FilePart, ImagePart, ReasoningPart, TextPart
from ultra.messages.events import RunCompleted
from ultra.service.kept_runs import find_run, last_event, nothing_kept
from ultra.service.problems import Problem, unknown_run
from ultra.service.reasoning import sealed
from ultra.service.responses.shape import shape_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ultra.messages.chat import Part
    from ultra.service.access import Caller
    from ultra.service.core import Service
    from ultra.service.responses.shape import ResponseShape
    from ultra.stores.journal_contract import RunRecord

__all__ = ["RESPONSE", "find_response", "input_items", "messages_before"]

RESPONSE = "resp_"
"""With this, the id of a response is that of its run."""

_FIELD = "previous_response_id"


async def find_response(service: Service, caller: Caller, name: str) -> tuple[RunRecord, ResponseShape]:
    """Return the run of a response, and how it is told.

    Raises:
        Problem: the caller has no response of this name.
        JournalUnavailable: the journal cannot be read.
    """
    try:
        run = await find_run(service, caller, name.removeprefix(RESPONSE), "response")
    except Problem:
        raise unknown_run(name, "response") from None
    shape = shape_of(run.tags)
    if shape is None or not name.startswith(RESPONSE):
        raise unknown_run(name, "response")
    return run, shape


async def messages_before(service: Service, caller: Caller, name: str) -> tuple[ChatMessage, ...]:
    """Return the conversation up to the response of this name, and with it, without its instructions.

    Raises:
        Problem: the service keeps none, there is none of this name, or it has given no answer.
        JournalUnavailable: the journal cannot be read.
    """
    if not service.orchestrator.has_journal:
        raise nothing_kept(_FIELD)
    try:
        run, shape = await find_response(service, caller, name)
    except Problem as problem:
        code = "previous_response_not_found"
        raise Problem.bad_request(f"{_FIELD}: {problem.message}", code=code, param=_FIELD) from None
    last = await last_event(service, run)
    answer = last.result.final_synthesis if isinstance(last, RunCompleted) else None
    if answer is None:
        text = f"{_FIELD}: that response is {run.state}, and has no answer to go on with"
        raise Problem.bad_request(text, param=_FIELD)
    return (*_inputs(run, shape), answer.message)


def input_items(run: RunRecord, shape: ResponseShape) -> list[dict[str, Any]]:
    """Return what a response was given as items, those of earlier responses too."""
    return [
        {"id": f"item_{run.run_id}_{number}", **item}
        for number, item in enumerate(each for message in _inputs(run, shape) for each in _items(message))
    ]


def _inputs(run: RunRecord, shape: ResponseShape) -> tuple[ChatMessage, ...]:
    messages = run.spec.request.messages
    own = () if shape.system is None else (ChatMessage("system", shape.system),)
    return (*own, *messages[len(messages) - shape.inputs :])


def _items(message: ChatMessage) -> Iterator[dict[str, Any]]:
    done = {"status": "completed"}
    if message.role == "tool":
        parts = [_part(part, "input") for part in message.parts]
        output = message.content if isinstance(message.content, str) else parts
        call_id = message.tool_call_id or ""
        yield {"type": "function_call_output", "call_id": call_id, "output": output, **done}
        return
    for part in message.parts:
        if isinstance(part, ReasoningPart):
            summary = [{"type": "summary_text", "text": part.text}] if part.text else []
            yield {"type": "reasoning", "summary": summary, "encrypted_content": sealed(part)}
    side = "output" if message.role == "assistant" else "input"
    said = [_part(part, side) for part in message.parts if not isinstance(part, ReasoningPart)]
    if said or not message.tool_calls:
        yield {"type": "message", "role": message.role, "content": said, **done}
    for call in message.tool_calls:
        told = {"call_id": call.id, "name": call.name, "arguments": call.arguments}
        yield {"type": "function_call", **told, **done}


def _part(part: Part, side: str) -> dict[str, Any]:
    match part:
        case TextPart():
            more: dict[str, Any] = {"annotations": []} if side == "output" else {}
            return {"type": f"{side}_text", "text": part.text, **more}
        case ImagePart():
            return {"type": "input_image", "image_url": _address(part), "detail": part.detail or "auto"}
        case FilePart():
            where = {"file_url": part.url} if part.data is None else {"file_data": _address(part)}
            return {"type": "input_file", "filename": part.name, **where}
        case ReasoningPart():
            return {"type": f"{side}_text", "text": part.text}


def _address(part: ImagePart | FilePart) -> str:
    if part.data is None:
        return part.url or ""
    return f"data:{part.media_type or ''};base64,{base64.b64encode(part.data).decode()}"
