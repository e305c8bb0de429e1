"""OpenAI's chat completions, as OpenAI, Azure and compatible providers speak them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final

import msgspec
from msgspec import Struct

from ultra.faults.provider.neutral import Message, Question
from ultra.faults.provider.protocol import RELEASED, Event, Limit, Protocol, Wording, bearer, decode, event

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from starlette.requests import Request

    from ultra.faults.provider.neutral import Answer, Failure, FailureKind
    from ultra.faults.provider.rate_limits import LimitState

__all__ = ["OPENAI"]


class _Part(Struct):
    text: str = ""


class _Message(Struct):
    role: str
    content: str | list[_Part] | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class _StreamOptions(Struct):
    include_usage: bool = False


class _Request(Struct):
    messages: Annotated[list[_Message], msgspec.Meta(min_length=1)]
    model: str = ""
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: Limit = None
    max_completion_tokens: Limit = None
    stop: str | list[str] | None = None
    seed: int | None = None


_decoder: Final = msgspec.json.Decoder(_Request)

_SYSTEM: Final = ("system", "developer")

_INVALID: Final = "invalid_request_error"


class _OpenAI(Protocol):
    """``POST /v1/chat/completions``, and Azure's ``/openai/deployments/{model}/chat/completions``."""

    name = "openai"
    wordings: ClassVar[Mapping[FailureKind, Wording]] = {
        "bad_request": Wording(400, _INVALID, "We could not parse the JSON body of your request."),
        "auth": Wording(401, _INVALID, "Incorrect API key provided.", "invalid_api_key"),
        "permission": Wording(403, _INVALID, "Your project does not have access to this model."),
        "quota": Wording(429, "insufficient_quota", "You exceeded your current quota.", "insufficient_quota"),
        "not_found": Wording(404, _INVALID, "The model does not exist.", "model_not_found"),
        "too_large": Wording(413, _INVALID, "The request is too large."),
        "rate_limit": Wording(429, "requests", "Rate limit reached for requests.", "rate_limit_exceeded"),
        "timeout": Wording(408, "server_error", "The request timed out."),
        "server": Wording(500, "server_error", "The server had an error while processing your request."),
        "overloaded": Wording(503, "server_error", "The engine is currently overloaded."),
    }

    def key(self, request: Request) -> str | None:
        return bearer(request) or request.headers.get("api-key")

    def read(self, request: Request, body: bytes) -> Question:
        asked = decode(_decoder, body)
        messages = [Message(each.role, each.text) for each in asked.messages]
        return Question(
            model=request.path_params.get("model", asked.model),
            messages=tuple(each for each in messages if each.role not in _SYSTEM),
            system="\n".join(each.text for each in messages if each.role in _SYSTEM),
            stream=bool(asked.stream),
            include_usage=asked.stream_options is not None and asked.stream_options.include_usage,
            max_tokens=asked.max_completion_tokens or asked.max_tokens,
            stop=(asked.stop,) if isinstance(asked.stop, str) else tuple(asked.stop or ()),
            seed=asked.seed,
        )

    def whole(self, answer: Answer) -> dict[str, Any]:
        refused = answer.finish == "refusal"
        message: dict[str, Any] = {
            "role": "assistant",
            "content": None if refused else answer.text,
            "refusal": answer.text if refused else None,
            "annotations": [],
        }
        if answer.reasoning:
            message["reasoning_content"] = answer.thought
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(answer)}
        return {
            **_frame(answer, "chat.completion"),
            "choices": [choice],
            "usage": _usage(answer),
            "service_tier": "default",
        }

    def events(self, answer: Answer) -> Iterator[Event]:
        field = "refusal" if answer.finish == "refusal" else "content"
        yield Event(_chunk(answer, {"role": "assistant", "content": "", "refusal": None}))
        for piece in answer.reasoning:
            yield Event(_chunk(answer, {"reasoning_content": piece}), 1)
        for piece in answer.pieces:
            yield Event(_chunk(answer, {field: piece}), 1)
        if answer.failure is not None:
            return
        yield Event(_chunk(answer, {}, _finish(answer)))
        if answer.include_usage:
            frame = _frame(answer, "chat.completion.chunk")
            yield Event(event({**frame, "choices": [], "usage": _usage(answer)}))
        yield Event(b"data: [DONE]\n\n")

    def failure(self, failure: Failure, request_id: str) -> dict[str, Any]:  # noqa: ARG002 - it is in the headers
        wording = self.wording(failure)
        return {
            "error": {
                "message": wording.message,
                "type": wording.type,
                "param": None,
                "code": wording.code,
            }
        }

    def failure_event(self, failure: Failure, request_id: str) -> bytes:
        return event(self.failure(failure, request_id))

    def headers(self, request_id: str, limits: Mapping[str, LimitState]) -> dict[str, str]:
        headers = {}
        for name, state in limits.items():
            headers[f"x-ratelimit-limit-{name}"] = str(state.limit)
            headers[f"x-ratelimit-remaining-{name}"] = str(state.remaining)
            headers[f"x-ratelimit-reset-{name}"] = _duration(state.reset)
        return {"x-request-id": f"req_{request_id}", "openai-version": "2020-10-01", **headers}

    def failure_headers(self, failure: Failure) -> dict[str, str]:
        headers = super().failure_headers(failure)
        if failure.retry_after is not None:
            headers["retry-after-ms"] = f"{failure.retry_after * 1000:.0f}"
        return headers

    def model(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": RELEASED, "owned_by": "ultra"}

    def models(self, names: Sequence[str], query: Mapping[str, str]) -> dict[str, Any]:  # noqa: ARG002 - one page
        return {"object": "list", "data": [self.model(name) for name in names]}


OPENAI: Final[Protocol] = _OpenAI()


def _frame(answer: Answer, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{answer.id}",
        "object": kind,
        "created": int(answer.created.timestamp()),
        "model": answer.model,
        "system_fingerprint": "fp_ultra",
    }


def _chunk(answer: Answer, delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    usage = {"usage": None} if answer.include_usage else {}
    return event({**_frame(answer, "chat.completion.chunk"), "choices": [choice], **usage})


def _finish(answer: Answer) -> str:
    return "stop" if answer.finish == "refusal" else answer.finish


def _usage(answer: Answer) -> dict[str, Any]:
    return {
        "prompt_tokens": answer.input,
        "completion_tokens": answer.output,
        "total_tokens": answer.input + answer.output,
        "prompt_tokens_details": {"cached_tokens": answer.cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": len(answer.reasoning),
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _duration(seconds: float) -> str:
    """Write a time as OpenAI does: ``26ms``, ``17.379s``, ``2m59.56s``."""
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    minutes, rest = divmod(round(seconds, 3), 60)
    return f"{minutes:.0f}m{rest:g}s" if minutes else f"{rest:g}s"
