"""Anthropic's Messages API."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Final

from ultra.faults.provider.anthropic_reading import THOUGHT_CALLS, read
from ultra.faults.provider.neutral import Failure
from ultra.faults.provider.protocol import (
    RELEASED,
    Event,
    Protocol,
    Refused,
    Wording,
    bearer,
    event,
    page_size,
)
from ultra.faults.provider.signatures import signature_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from starlette.requests import Request

    from ultra.faults.provider.neutral import Answer, FailureKind, Question, WrittenCall
    from ultra.faults.provider.rate_limits import LimitState

__all__ = ["ANTHROPIC"]


_STOP_REASON: Final = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


class _Anthropic(Protocol):
    """``POST /v1/messages``."""

    name = "anthropic"
    wordings: ClassVar[Mapping[FailureKind, Wording]] = {
        "bad_request": Wording(400, "invalid_request_error", "The request is invalid."),
        "auth": Wording(401, "authentication_error", "invalid x-api-key"),
        "permission": Wording(403, "permission_error", "Your API key may not use this resource."),
        "quota": Wording(
            400, "invalid_request_error", "Your credit balance is too low to access the Anthropic API."
        ),
        "not_found": Wording(404, "not_found_error", "Not found"),
        "too_large": Wording(413, "request_too_large", "Request exceeds the maximum allowed size."),
        "rate_limit": Wording(
            429, "rate_limit_error", "This request would exceed your organization's rate limit."
        ),
        "timeout": Wording(504, "timeout_error", "Request timed out."),
        "server": Wording(500, "api_error", "Internal server error"),
        "overloaded": Wording(529, "overloaded_error", "Overloaded"),
    }

    def key(self, request: Request) -> str | None:
        return request.headers.get("x-api-key") or bearer(request)

    def read(self, request: Request, body: bytes) -> Question:
        return read(body, counting=request.url.path.endswith("/count_tokens"))

    def whole(self, answer: Answer) -> dict[str, Any]:
        signature = signature_of(answer.thought)
        thinking = [_block("thinking", answer.thought, signature=signature)] if answer.reasoning else []
        text = [_block("text", answer.text)] if answer.pieces and answer.finish != "refusal" else []
        calls = [_call(answer, call, call.object) for call in answer.whole_calls]
        usage = {**_usage(answer), "service_tier": "standard"}
        return {**_message(answer), "content": thinking + text + calls, **_end(answer), "usage": usage}

    def events(self, answer: Answer) -> Iterator[Event]:
        start = {
            **_message(answer),
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {**_usage(answer), "output_tokens": 1, "service_tier": "standard"},
        }
        yield _event("message_start", message=start)
        yield _event("ping")
        index = 0
        if answer.reasoning:
            yield _event(
                "content_block_start", index=index, content_block=_block("thinking", "", signature="")
            )
            for piece in answer.reasoning:
                yield _delta(index, "thinking", piece)
            signature = {"type": "signature_delta", "signature": signature_of(answer.thought)}
            yield _event("content_block_delta", index=index, delta=signature)
            yield _event("content_block_stop", index=index)
            index += 1
        if answer.pieces and answer.finish != "refusal":
            yield _event("content_block_start", index=index, content_block=_block("text", ""))
            for piece in answer.pieces:
                yield _delta(index, "text", piece)
            if answer.failure is None or answer.calls:
                yield _event("content_block_stop", index=index)
            index += 1
        for call in answer.calls:
            yield _event("content_block_start", index=index, content_block=_call(answer, call, {}))
            for piece in ("", *call.pieces):
                yield _delta(index, "input_json", piece, "partial_json")
            if call.whole:
                yield _event("content_block_stop", index=index)
            index += 1
        if answer.failure is None:
            yield _event("message_delta", delta=_end(answer), usage=_usage(answer))
            yield _event("message_stop")

    def failure(self, failure: Failure, request_id: str) -> dict[str, Any]:
        wording = self.wording(failure)
        error = {"type": wording.type, "message": wording.message}
        return {"type": "error", "error": error, "request_id": f"req_{request_id}"}

    def failure_event(self, failure: Failure, request_id: str, number: int) -> bytes:  # noqa: ARG002 - not numbered
        return event(self.failure(failure, request_id), "error")

    def headers(self, request_id: str, limits: Mapping[str, LimitState]) -> dict[str, str]:
        headers = {}
        for name, state in limits.items():
            prefix = f"anthropic-ratelimit-{name}"
            reset = datetime.now(UTC) + timedelta(seconds=state.reset)
            headers[f"{prefix}-limit"] = str(state.limit)
            headers[f"{prefix}-remaining"] = str(state.remaining)
            headers[f"{prefix}-reset"] = reset.strftime("%Y-%m-%dT%H:%M:%SZ")
        return {"request-id": f"req_{request_id}", **headers}

    def failure_headers(self, failure: Failure) -> dict[str, str]:
        status = self.wording(failure).status
        retryable = status in {408, 409, 429} or status >= 500  # noqa: PLR2004 - the server's errors
        return {**super().failure_headers(failure), "x-should-retry": str(retryable).lower()}

    def model(self, name: str) -> dict[str, Any]:
        released = datetime.fromtimestamp(RELEASED, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {"type": "model", "id": name, "display_name": name, "created_at": released}

    def models(self, names: Sequence[str], query: Mapping[str, str]) -> dict[str, Any]:
        begin = 0
        if after := query.get("after_id"):
            if after not in names:
                raise Refused(Failure("bad_request", message=f"after_id: {after!r} is no model"))
            begin = names.index(after) + 1
        size = page_size(query, "limit", default=20)
        page = names[begin : begin + size]
        ends = {"first_id": page[0], "last_id": page[-1]} if page else {"first_id": None, "last_id": None}
        data = [self.model(name) for name in page]
        return {"data": data, "has_more": begin + size < len(names), **ends}


ANTHROPIC: Final[Protocol] = _Anthropic()


def _message(answer: Answer) -> dict[str, Any]:
    return {"id": f"msg_{answer.id}", "type": "message", "role": "assistant", "model": answer.model}


def _block(kind: str, text: str, **more: str) -> dict[str, str]:
    return {"type": kind, kind: text, **more}


def _call(answer: Answer, call: WrittenCall, arguments: dict[str, Any]) -> dict[str, Any]:
    name = call.id_with(THOUGHT_CALLS if answer.reasoning else "toolu_")
    return {"type": "tool_use", "id": name, "name": call.name, "input": arguments}


def _end(answer: Answer) -> dict[str, Any]:
    if answer.finish in {"refusal", "content_filter"}:
        details = {"type": "refusal", "explanation": answer.text if answer.finish == "refusal" else None}
        return {"stop_reason": "refusal", "stop_sequence": None, "stop_details": details}
    reason = "stop_sequence" if answer.stop_sequence is not None else _STOP_REASON[answer.finish]
    return {"stop_reason": reason, "stop_sequence": answer.stop_sequence}


def _usage(answer: Answer) -> dict[str, Any]:
    details = (
        {"output_tokens_details": {"thinking_tokens": len(answer.reasoning)}} if answer.reasoning else {}
    )
    return {
        "input_tokens": answer.input - answer.cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": answer.cached,
        "output_tokens": answer.output,
        **details,
    }


def _event(name: str, **fields: object) -> Event:
    return Event(event({"type": name, **fields}, name))


def _delta(index: int, kind: str, piece: str, field: str = "") -> Event:
    delta = {"type": f"{kind}_delta", field or kind: piece}
    payload = {"type": "content_block_delta", "index": index, "delta": delta}
    return Event(event(payload, "content_block_delta"), 1)
