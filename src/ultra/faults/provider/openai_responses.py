"""OpenAI's Responses API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from ultra.faults.provider.openai import OpenAIChat
from ultra.faults.provider.protocol import Event, Protocol, event
from ultra.faults.provider.responses_reading import read
from ultra.faults.provider.signatures import encrypted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from starlette.requests import Request

    from ultra.faults.provider.neutral import Answer, Failure, Question, WrittenCall

__all__ = ["OPENAI_RESPONSES"]

_INCOMPLETE: Final = {"length": "max_output_tokens", "content_filter": "content_filter"}

_REPEATED: Final[Mapping[str, Any]] = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "service_tier": "default",
    "store": True,
    "temperature": 1.0,
    "tool_choice": "auto",
    "tools": [],
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}
"""What the response repeats of the request, and what stands there where the request does not say."""


class _Responses(OpenAIChat):
    """``POST /v1/responses``, plain and streamed. Nothing is stored."""

    name: ClassVar = "openai_responses"

    def read(self, request: Request, body: bytes) -> Question:  # noqa: ARG002 - the body says it all
        return read(body)

    def whole(self, answer: Answer) -> dict[str, Any]:
        return _response(answer, _items(answer), ended=True)

    def events(self, answer: Answer) -> Iterator[Event]:
        numbers = iter(range(10**9))

        def made(kind: str, tokens: int = 0, **fields: object) -> Event:
            return Event(event({"type": kind, "sequence_number": next(numbers), **fields}, kind), tokens)

        begun = _response(answer, [], ended=False)
        yield made("response.created", response=begun)
        yield made("response.in_progress", response=begun)
        items = _items(answer)
        for index, item in enumerate(items):
            place = {"item_id": item["id"], "output_index": index}
            cut = answer.failure is not None and index == len(items) - 1
            for kind, tokens, fields in _item_events(answer, item, index, cut=cut):
                about = {} if kind.startswith("response.output_item") else place
                yield made(kind, tokens, **about, **fields)
        if answer.failure is None:
            ended = _response(answer, items, ended=True)
            yield made(f"response.{ended['status']}", response=ended)

    def failure_event(self, failure: Failure, request_id: str, number: int) -> bytes:  # noqa: ARG002 - it has none
        wording = self.wording(failure)
        told = {"code": wording.code or wording.type, "message": wording.message, "param": None}
        return event({"type": "error", **told, "sequence_number": number}, "error")


OPENAI_RESPONSES: Final[Protocol] = _Responses()


def _items(answer: Answer) -> list[dict[str, Any]]:
    """The output: reasoning, a message, and calls, each of them an item."""
    items: list[dict[str, Any]] = []
    whole = "incomplete" if answer.finish in _INCOMPLETE else "completed"
    if answer.reasoning:
        summary = [{"type": "summary_text", "text": answer.thought}]
        item: dict[str, Any] = {"id": f"rs_{answer.id}", "type": "reasoning", "summary": summary}
        if answer.question.show_encrypted:
            item["encrypted_content"] = encrypted(answer.thought)
        items.append(item)
    if answer.pieces or not answer.calls:
        name = f"msg_{answer.id}"
        content = [_part(answer, answer.text)]
        items.append(
            {"id": name, "type": "message", "status": whole, "role": "assistant", "content": content}
        )
    return items + [
        _call(call, call.arguments, "completed" if call.whole else whole) for call in answer.calls
    ]


def _part(answer: Answer, text: str) -> dict[str, Any]:
    if answer.finish == "refusal":
        return {"type": "refusal", "refusal": text}
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _call(call: WrittenCall, arguments: str, status: str) -> dict[str, Any]:
    about = {"id": f"fc_{call.key}", "type": "function_call", "status": status}
    return {**about, "call_id": call.id_with("call_"), "name": call.name, "arguments": arguments}


def _item_events(
    answer: Answer, item: dict[str, Any], index: int, *, cut: bool
) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Yield kind, tokens and fields of the events of one item; of a `cut` one, only its beginning."""
    place = {"output_index": index}
    match item["type"]:
        case "reasoning":
            yield "response.output_item.added", 0, {**place, "item": {**item, "summary": []}}
            empty = {"type": "summary_text", "text": ""}
            yield "response.reasoning_summary_part.added", 0, {"summary_index": 0, "part": empty}
            for piece in answer.reasoning:
                yield "response.reasoning_summary_text.delta", 1, {"summary_index": 0, "delta": piece}
            ends = [
                ("response.reasoning_summary_text.done", {"summary_index": 0, "text": answer.thought}),
                ("response.reasoning_summary_part.done", {"summary_index": 0, "part": item["summary"][0]}),
            ]
        case "message":
            begun = {**item, "status": "in_progress", "content": []}
            yield "response.output_item.added", 0, {**place, "item": begun}
            yield "response.content_part.added", 0, {"content_index": 0, "part": _part(answer, "")}
            kind = "refusal" if answer.finish == "refusal" else "output_text"
            more: dict[str, Any] = {} if kind == "refusal" else {"logprobs": []}
            for piece in answer.pieces:
                yield f"response.{kind}.delta", 1, {"content_index": 0, "delta": piece, **more}
            name = "refusal" if kind == "refusal" else "text"
            ends = [
                (f"response.{kind}.done", {"content_index": 0, name: answer.text, **more}),
                ("response.content_part.done", {"content_index": 0, "part": item["content"][0]}),
            ]
        case _:
            call = next(call for call in answer.calls if f"fc_{call.key}" == item["id"])
            yield "response.output_item.added", 1, {**place, "item": _call(call, "", "in_progress")}
            for piece in call.pieces:
                yield "response.function_call_arguments.delta", 1, {"delta": piece}
            done = {"name": call.name, "arguments": call.arguments}
            ends = [("response.function_call_arguments.done", done)] if call.whole else []
    if not cut:
        for kind, fields in ends:
            yield kind, 0, fields
        yield "response.output_item.done", 0, {**place, "item": item}


def _response(answer: Answer, items: list[dict[str, Any]], *, ended: bool) -> dict[str, Any]:
    asked = answer.question.asked
    reason = _INCOMPLETE.get(answer.finish) if ended else None
    status = "incomplete" if reason is not None else "completed" if ended else "in_progress"
    effort = asked.get("reasoning") or {}
    return {
        "id": f"resp_{answer.id}",
        "object": "response",
        "created_at": int(answer.created.timestamp()),
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": {"reason": reason} if reason is not None else None,
        **{name: asked.get(name, value) for name, value in _REPEATED.items()},
        "model": answer.model,
        "output": items,
        "reasoning": {"effort": effort.get("effort"), "summary": effort.get("summary")},
        "text": asked.get("text") or {"format": {"type": "text"}},
        "usage": _usage(answer) if ended else None,
    }


def _usage(answer: Answer) -> dict[str, Any]:
    return {
        "input_tokens": answer.input,
        "input_tokens_details": {"cached_tokens": answer.cached},
        "output_tokens": answer.output,
        "output_tokens_details": {"reasoning_tokens": len(answer.reasoning)},
        "total_tokens": answer.input + answer.output,
    }
