"""Gemini's generateContent and streamGenerateContent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final

import msgspec
from msgspec import Struct

from ultra.faults.provider.neutral import Failure, Message, Question
from ultra.faults.provider.protocol import Event, Limit, Protocol, Refused, Wording, decode, event, page_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from starlette.requests import Request

    from ultra.faults.provider.neutral import Answer, FailureKind

__all__ = ["GEMINI"]


class _Part(Struct):
    text: str = ""


class _Content(Struct):
    parts: list[_Part] = []
    role: str = "user"

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.parts)


class _Generation(Struct, rename="camel"):
    max_output_tokens: Limit = None
    stop_sequences: list[str] | None = None
    seed: int | None = None


class _Request(Struct, rename="camel"):
    contents: Annotated[list[_Content], msgspec.Meta(min_length=1)]
    system_instruction: _Content | None = None
    generation_config: _Generation | None = None


_decoder: Final = msgspec.json.Decoder(_Request)

_FINISH: Final = {"stop": "STOP", "length": "MAX_TOKENS", "content_filter": "SAFETY"}

_TYPES: Final = "type.googleapis.com/google.rpc"

_BAD_KEY: Final = "API key not valid. Please pass a valid API key."


class _Gemini(Protocol):
    """``POST /v1beta/models/{model}:generateContent``, and ``:streamGenerateContent?alt=sse``."""

    name = "gemini"
    stream_type = "text/event-stream"
    json_type = "application/json; charset=UTF-8"
    wordings: ClassVar[Mapping[FailureKind, Wording]] = {
        "bad_request": Wording(400, "INVALID_ARGUMENT", "Request contains an invalid argument."),
        "auth": Wording(400, "INVALID_ARGUMENT", _BAD_KEY, "API_KEY_INVALID"),
        "permission": Wording(
            403, "PERMISSION_DENIED", "Method doesn't allow unregistered callers. Please use an API key."
        ),
        "quota": Wording(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota."),
        "not_found": Wording(404, "NOT_FOUND", "The model is not found for API version v1beta."),
        "too_large": Wording(413, "INVALID_ARGUMENT", "Request payload size exceeds the limit."),
        "rate_limit": Wording(429, "RESOURCE_EXHAUSTED", "Quota exceeded for requests per minute."),
        "timeout": Wording(504, "DEADLINE_EXCEEDED", "Deadline expired before operation could complete."),
        "server": Wording(500, "INTERNAL", "An internal error has occurred. Please retry."),
        "overloaded": Wording(503, "UNAVAILABLE", "The model is overloaded. Please try again later."),
    }

    def key(self, request: Request) -> str | None:
        return request.headers.get("x-goog-api-key") or request.query_params.get("key")

    def check_key(self, key: str | None, expected: str | None) -> Failure | None:
        return super().check_key(key, expected) if key else Failure("permission")

    def read(self, request: Request, body: bytes) -> Question:
        asked = decode(_decoder, body)
        stream = request.url.path.endswith(":streamGenerateContent")
        if stream and request.query_params.get("alt") != "sse":
            raise Refused(Failure("bad_request", message="Only streams with alt=sse are simulated."))
        generation = asked.generation_config or _Generation()
        return Question(
            model=request.path_params["model"],
            messages=tuple(Message(each.role, each.text) for each in asked.contents),
            system=asked.system_instruction.text if asked.system_instruction else "",
            stream=stream,
            max_tokens=generation.max_output_tokens,
            stop=tuple(generation.stop_sequences or ()),
            seed=generation.seed,
        )

    def whole(self, answer: Answer) -> dict[str, Any]:
        thoughts = [{"text": answer.thought, "thought": True}] if answer.reasoning else []
        texts = [{"text": answer.text}] if answer.pieces else []
        return _chunk(answer, thoughts + texts, ended=True)

    def events(self, answer: Answer) -> Iterator[Event]:
        if answer.finish == "refusal":
            yield _event(_chunk(answer, [], ended=True))
            return
        thoughts = [{"text": piece, "thought": True} for piece in answer.reasoning]
        parts: list[dict[str, Any]] = [*thoughts, *({"text": piece} for piece in answer.pieces)]
        whole = answer.failure is None
        for number, part in enumerate(parts, start=1):
            yield _event(_chunk(answer, [part], ended=whole and number == len(parts)), 1)
        if whole and not parts:
            yield _event(_chunk(answer, [], ended=True))

    def failure(self, failure: Failure, request_id: str) -> dict[str, Any]:  # noqa: ARG002 - errors have none
        wording = self.wording(failure)
        details: list[dict[str, Any]] = []
        if wording.code is not None:
            info = {"reason": wording.code, "domain": "googleapis.com"}
            details.append({"@type": f"{_TYPES}.ErrorInfo", **info})
        if failure.retry_after is not None:
            details.append({"@type": f"{_TYPES}.RetryInfo", "retryDelay": f"{failure.retry_after:g}s"})
        error = {"code": wording.status, "message": wording.message, "status": wording.type}
        return {"error": {**error, "details": details} if details else error}

    def failure_event(self, failure: Failure, request_id: str) -> bytes:
        return _event(self.failure(failure, request_id)).data

    def failure_headers(self, failure: Failure) -> dict[str, str]:  # noqa: ARG002 - the body says when to retry
        return {}

    def model(self, name: str) -> dict[str, Any]:
        return {
            "name": f"models/{name}",
            "version": "001",
            "displayName": name,
            "inputTokenLimit": 1_048_576,
            "outputTokenLimit": 65_536,
            "supportedGenerationMethods": ["generateContent", "countTokens"],
        }

    def models(self, names: Sequence[str], query: Mapping[str, str]) -> dict[str, Any]:
        token = query.get("pageToken") or "0"
        if not (token.isascii() and token.isdigit()):
            raise Refused(Failure("bad_request", message=f"The page token {token!r} is not valid."))
        size = page_size(query, "pageSize", default=50)
        end = int(token[:9]) + size
        page = {"models": [self.model(name) for name in names[end - size : end]]}
        return page | ({"nextPageToken": str(end)} if end < len(names) else {})


GEMINI: Final[Protocol] = _Gemini()


def _chunk(answer: Answer, parts: list[dict[str, Any]], *, ended: bool) -> dict[str, Any]:
    """One chunk of a stream, or with all parts and `ended` the whole answer."""
    about = {
        "usageMetadata": _usage(answer, ended=ended),
        "modelVersion": answer.model,
        "responseId": answer.id,
    }
    if answer.finish == "refusal":
        return {"promptFeedback": {"blockReason": "SAFETY", "blockReasonMessage": answer.text}, **about}
    candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}, "index": 0}
    if ended:
        candidate["finishReason"] = _FINISH[answer.finish]
    return {"candidates": [candidate], **about}


def _usage(answer: Answer, *, ended: bool) -> dict[str, Any]:
    usage: dict[str, Any] = {
        "promptTokenCount": answer.input,
        "totalTokenCount": answer.input,
        "promptTokensDetails": _details(answer.input),
    }
    if answer.cached:
        usage["cachedContentTokenCount"] = answer.cached
    if ended:
        usage["candidatesTokenCount"] = len(answer.pieces)
        usage["candidatesTokensDetails"] = _details(len(answer.pieces))
        usage["totalTokenCount"] += answer.output
        if answer.reasoning:
            usage["thoughtsTokenCount"] = len(answer.reasoning)
    return usage


def _details(tokens: int) -> list[dict[str, Any]]:
    return [{"modality": "TEXT", "tokenCount": tokens}]


def _event(payload: object, tokens: int = 0) -> Event:
    return Event(event(payload, end=b"\r\n"), tokens)
