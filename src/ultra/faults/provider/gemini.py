"""Gemini's generateContent and streamGenerateContent."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final

import msgspec
from msgspec import Struct

from ultra.faults.provider.asked_tools import ANY_OBJECT, choice_of, tool_of
from ultra.faults.provider.media_reading import bad_request, from_base64, from_url
from ultra.faults.provider.neutral import Call, Failure, Message, Question, ToolResult, call_tokens
from ultra.faults.provider.protocol import (
    Event,
    Limit,
    Protocol,
    Refused,
    Wording,
    convert,
    decode,
    event,
    json,
    page_size,
)
from ultra.faults.provider.signatures import is_signature_of, signature_of
from ultra.messages.tools import ToolChoice

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from starlette.requests import Request

    from ultra.faults.provider.neutral import Answer, FailureKind, Media, MediaKind
    from ultra.messages.tools import Tool

__all__ = ["GEMINI", "camel"]


class _Blob(Struct, rename="camel"):
    mime_type: str
    data: str = ""


class _FileData(Struct, rename="camel"):
    file_uri: str
    mime_type: str | None = None


class _Call(Struct):
    name: str
    args: dict[str, Any] = {}
    id: str = ""


class _Result(Struct):
    name: str
    response: dict[str, Any] = {}
    id: str = ""
    parts: list[_Part] = []


class _Part(Struct, rename="camel"):
    text: str = ""
    thought: bool = False
    thought_signature: str | None = None
    inline_data: _Blob | None = None
    file_data: _FileData | None = None
    function_call: _Call | None = None
    function_response: _Result | None = None


class _Content(Struct):
    parts: list[_Part] = []
    role: str = "user"

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.parts if not part.thought)


class _Generation(Struct, rename="camel"):
    max_output_tokens: Limit = None
    stop_sequences: list[str] | None = None
    seed: int | None = None
    response_mime_type: str | None = None
    response_schema: dict[str, Any] | None = None
    response_json_schema: dict[str, Any] | None = None


class _Declaration(Struct, rename="camel"):
    name: str
    description: str = ""
    parameters: dict[str, Any] | None = None
    parameters_json_schema: dict[str, Any] | None = None


class _Tool(Struct, rename="camel"):
    function_declarations: list[_Declaration] = []


class _CallingConfig(Struct, rename="camel"):
    mode: str = "AUTO"
    allowed_function_names: list[str] | None = None


class _ToolConfig(Struct, rename="camel"):
    function_calling_config: _CallingConfig | None = None


class _Request(Struct, rename="camel"):
    contents: Annotated[list[_Content], msgspec.Meta(min_length=1)]
    system_instruction: _Content | None = None
    generation_config: _Generation | None = None
    tools: list[_Tool] | None = None
    tool_config: _ToolConfig | None = None


_any: Final[msgspec.json.Decoder[Any]] = msgspec.json.Decoder()

_OPAQUE: Final = frozenset(
    {
        *("args", "response", "parameters", "parametersJsonSchema"),
        *("responseSchema", "responseJsonSchema"),
    }
)
"""Fields whose names within are the caller's own."""

_FINISH: Final = {"stop": "STOP", "length": "MAX_TOKENS", "content_filter": "SAFETY", "tool_calls": "STOP"}

_SIGNED: Final = "gemini"
"""What signatures sign: they say that a model of this provider made the part."""

_SKIP: Final = "skip_thought_signature_validator"
"""The signature that Google's documentation has for calls of other models."""

_OWN_ID: Final = re.compile("[0-9a-f]{26}")
"""How the ids of calls look that were made here."""

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
        asked = convert(camel(decode(_any, body)), _Request)
        stream = request.url.path.endswith(":streamGenerateContent")
        if stream and request.query_params.get("alt") != "sse":
            raise Refused(Failure("bad_request", message="Only streams with alt=sse are simulated."))
        generation = asked.generation_config or _Generation()
        _check_calls(asked.contents, strict=request.path_params["model"].startswith("gemini-3"))
        declared = [each for tool in asked.tools or () for each in tool.function_declarations]
        tools = tuple(
            tool_of(
                each.name, each.description, _lowered(each.parameters_json_schema or each.parameters or {})
            )
            for each in declared
        )
        schema = generation.response_json_schema or generation.response_schema
        if schema is None and generation.response_mime_type == "application/json":
            schema = ANY_OBJECT
        return Question(
            model=request.path_params["model"],
            messages=tuple(
                _message(each, f"contents[{number}]") for number, each in enumerate(asked.contents)
            ),
            system=asked.system_instruction.text if asked.system_instruction else "",
            stream=stream,
            max_tokens=generation.max_output_tokens,
            stop=tuple(generation.stop_sequences or ()),
            seed=generation.seed,
            tools=tools,
            choice=_choice(asked.tool_config, tools),
            schema=schema,
        )

    def whole(self, answer: Answer) -> dict[str, Any]:
        thoughts = [{"text": answer.thought, "thought": True}] if answer.reasoning else []
        texts = [{"text": answer.text}] if answer.pieces else []
        return _chunk(answer, _signed(answer, [*thoughts, *texts], _calls(answer)), ended=True)

    def events(self, answer: Answer) -> Iterator[Event]:
        if answer.finish == "refusal":
            yield _event(_chunk(answer, [], ended=True))
            return
        thoughts = [{"text": piece, "thought": True} for piece in answer.reasoning]
        texts = ({"text": piece} for piece in answer.pieces)
        parts = _signed(answer, [*thoughts, *texts], _calls(answer))
        tokens = [1] * (len(thoughts) + len(answer.pieces)) + list(map(call_tokens, answer.whole_calls))
        whole = answer.failure is None
        for number, (part, count) in enumerate(zip(parts, tokens, strict=True), start=1):
            yield _event(_chunk(answer, [part], ended=whole and number == len(parts)), count)
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

    def failure_event(self, failure: Failure, request_id: str, number: int) -> bytes:  # noqa: ARG002 - not numbered
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


def camel(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """Return a request with its fields in camel case: Google takes both, and its own client sends both."""
    if isinstance(value, list):
        return list(map(camel, value))
    if not isinstance(value, dict):
        return value
    names = {name: re.sub(r"_([a-z])", lambda match: match[1].upper(), name) for name in value}
    return {names[name]: each if names[name] in _OPAQUE else camel(each) for name, each in value.items()}


def _check_calls(contents: Sequence[_Content], *, strict: bool) -> None:
    """Refuse results that do not stand right behind their calls, and calls without their signature."""
    waiting: list[_Call] = []
    # Only the turn that still goes on has to have signatures.
    asked = [number for number, each in enumerate(contents) if each.role == "user" and each.text]
    if contents[0].role == "model" and any(part.function_call is not None for part in contents[0].parts):
        raise bad_request(
            "Please ensure that function call turn comes immediately after a user turn or after a function "
            "response turn."
        )
    for number, content in enumerate(contents):
        results = [part.function_response for part in content.parts if part.function_response is not None]
        if results and not waiting:
            raise bad_request(
                "Please ensure that function response turn comes immediately after a function call turn."
            )
        if len(results) != len(waiting):
            raise bad_request(
                "Please ensure that the number of function response parts is equal to the number of function "
                "call parts of the function call turn."
            )
        for call, result in zip(waiting, results, strict=True):
            if result.name != call.name or (result.id and result.id != call.id):
                raise bad_request(
                    f"The function response {result.name!r} answers no function call before it."
                )
        calls = [part for part in content.parts if part.function_call is not None]
        asked_for = calls if number > max(asked, default=-1) else []
        _check_signatures(content, asked_for, number, strict=strict)
        waiting = [part.function_call for part in calls if part.function_call is not None]
    if waiting:
        raise bad_request(
            "Please ensure that single turn requests end with a user role or a function response."
        )


def _check_signatures(content: _Content, calls: Sequence[_Part], number: int, *, strict: bool) -> None:
    """Refuse signatures of nobody, and calls without one: the first of a turn came with it."""
    for part in content.parts:
        signature = part.thought_signature
        if signature not in {None, _SKIP} and not is_signature_of(signature or "", _SIGNED):
            raise bad_request(f"Corrupted thought signature. (contents[{number}])")
    call = calls[0].function_call if calls else None
    if call is not None and calls[0].thought_signature is None and (strict or _OWN_ID.fullmatch(call.id)):
        raise bad_request(
            "Function call is missing a thought_signature in functionCall parts. This is required for tools "
            f"to work correctly. Additional data, function call `default_api:{call.name}`, "
            f"position {number + 1}."
        )


def _message(given: _Content, where: str) -> Message:
    media: list[Media] = []
    calls: list[Call] = []
    results: list[ToolResult] = []
    for number, part in enumerate(given.parts):
        place = f"{where}.parts[{number}]"
        media += _media(part, place)
        if (call := part.function_call) is not None:
            calls.append(Call(call.name, call.args, call.id))
        if (result := part.function_response) is not None:
            said = result.response
            key = next((key for key in ("output", "result", "error") if key in said), None)
            text = said[key] if key and isinstance(said[key], str) else json(said).decode()
            results.append(ToolResult(result.id, result.name, text, "error" in said))
            media += [found for each in result.parts for found in _media(each, place)]
    return Message(given.role, given.text, tuple(media), tuple(calls), tuple(results))


def _media(part: _Part, where: str) -> list[Media]:
    found = []
    if (blob := part.inline_data) is not None:
        kind: MediaKind = "image" if blob.mime_type.startswith("image/") else "document"
        found.append(from_base64(kind, blob.data, blob.mime_type, f"{where}.inline_data"))
    if (file := part.file_data) is not None:
        kind = "image" if (file.mime_type or "").startswith("image/") else "document"
        found.append(from_url(kind, file.file_uri, f"{where}.file_data"))
    return found


def _choice(given: _ToolConfig | None, tools: Sequence[Tool]) -> ToolChoice:
    config = given.function_calling_config if given is not None else None
    if config is None:
        return ToolChoice()
    names = config.allowed_function_names or []
    mode = {"NONE": "none", "ANY": "required"}.get(config.mode.upper(), "auto")
    return choice_of(names[0] if mode == "required" and len(names) == 1 else mode, tools, parallel=None)


def _lowered(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an object with the type's name in small letters, as JSON schemas have it."""
    kind = schema.get("type")
    return {**schema, "type": kind.lower()} if isinstance(kind, str) else schema


def _calls(answer: Answer) -> list[dict[str, Any]]:
    return [
        {"functionCall": {"name": call.name, "args": call.object, "id": call.id_with("")}}
        for call in answer.whole_calls
    ]


def _signed(answer: Answer, said: list[dict[str, Any]], calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return all parts, with a signature at the first call, or else at the last text after thoughts."""
    signature = {"thoughtSignature": signature_of(_SIGNED)}
    if calls:
        calls = [calls[0] | signature, *calls[1:]]
    elif answer.reasoning and answer.pieces:
        said = [*said[:-1], said[-1] | signature]
    return said + calls


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
        "promptTokensDetails": _details(answer.input, answer.media_tokens),
    }
    if answer.cached:
        usage["cachedContentTokenCount"] = answer.cached
    if ended:
        written = answer.output - len(answer.reasoning)
        usage["candidatesTokenCount"] = written
        usage["candidatesTokensDetails"] = _details(written)
        usage["totalTokenCount"] += answer.output
        if answer.reasoning:
            usage["thoughtsTokenCount"] = len(answer.reasoning)
    return usage


def _details(tokens: int, media: tuple[int, int] = (0, 0)) -> list[dict[str, Any]]:
    counts = {"TEXT": tokens - sum(media), "IMAGE": media[0], "DOCUMENT": media[1]}
    return [
        {"modality": modality, "tokenCount": count}
        for modality, count in counts.items()
        if count or modality == "TEXT"
    ]


def _event(payload: object, tokens: int = 0) -> Event:
    return Event(event(payload, end=b"\r\n"), tokens)
