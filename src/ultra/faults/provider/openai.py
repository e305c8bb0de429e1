"""OpenAI's chat completions, as OpenAI, Azure and compatible providers speak them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final

import msgspec
from msgspec import Struct

from ultra.faults.provider.asked_tools import ANY_OBJECT, choice_of, tool_of
from ultra.faults.provider.media_reading import bad_request, from_url
from ultra.faults.provider.neutral import Call, Message, Question, ToolResult
from ultra.faults.provider.protocol import RELEASED, Event, Limit, Protocol, Wording, bearer, decode, event

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from starlette.requests import Request

    from ultra.faults.provider.neutral import Answer, Failure, FailureKind, WrittenCall
    from ultra.faults.provider.rate_limits import LimitState
    from ultra.messages.tools import Tool

__all__ = ["OPENAI", "OPENROUTER", "OpenAIChat"]


class _Url(Struct):
    url: str
    detail: str | None = None


class _File(Struct):
    file_data: str | None = None
    filename: str | None = None
    file_id: str | None = None


class _Part(Struct):
    type: str = "text"
    text: str = ""
    image_url: _Url | None = None
    file: _File | None = None
    cache_control: dict[str, Any] | None = None


class _Function(Struct):
    name: str
    arguments: str = ""


class _Call(Struct):
    id: str
    function: _Function
    type: str = "function"


class _Message(Struct):
    role: str
    content: str | list[_Part] | None = None
    tool_calls: list[_Call] | None = None
    tool_call_id: str | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""

    @property
    def parts(self) -> list[_Part]:
        return self.content if isinstance(self.content, list) else []


class _Named(Struct):
    name: str


class _Choice(Struct):
    function: _Named
    type: str = "function"


class _Definition(Struct):
    name: str
    description: str = ""
    parameters: dict[str, Any] = {}
    strict: bool | None = None


class _Tool(Struct):
    function: _Definition
    type: str = "function"


class _Schema(Struct):
    name: str
    schema: dict[str, Any] = {}


class _Format(Struct):
    type: str
    json_schema: _Schema | None = None


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
    tools: list[_Tool] | None = None
    tool_choice: str | _Choice | None = None
    parallel_tool_calls: bool | None = None
    response_format: _Format | None = None


_decoder: Final = msgspec.json.Decoder(_Request)

_SYSTEM: Final = ("system", "developer")

_INVALID: Final = "invalid_request_error"


class OpenAIChat(Protocol):
    """``POST /v1/chat/completions``, and Azure's ``/openai/deployments/{model}/chat/completions``."""

    name = "openai"
    takes_hints: ClassVar = False  # of what to cache
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
        """Return the key of a request."""
        return bearer(request) or request.headers.get("api-key")

    def read(self, request: Request, body: bytes) -> Question:
        """Read a request. Raises `Refused`."""
        asked = decode(_decoder, body)
        _check_calls(asked.messages)
        messages = [_message(each, number, self.takes_hints) for number, each in enumerate(asked.messages)]
        tools = tuple(_tool(tool.function) for tool in asked.tools or ())
        named = asked.tool_choice.function.name if isinstance(asked.tool_choice, _Choice) else None
        return Question(
            model=request.path_params.get("model", asked.model),
            messages=tuple(each for each in messages if each.role not in _SYSTEM),
            system="\n".join(each.text for each in messages if each.role in _SYSTEM),
            stream=bool(asked.stream),
            include_usage=asked.stream_options is not None and asked.stream_options.include_usage,
            max_tokens=asked.max_completion_tokens or asked.max_tokens,
            stop=(asked.stop,) if isinstance(asked.stop, str) else tuple(asked.stop or ()),
            seed=asked.seed,
            tools=tools,
            choice=choice_of(named or asked.tool_choice, tools, parallel=asked.parallel_tool_calls),
            schema=_schema(asked.response_format),
        )

    def whole(self, answer: Answer) -> dict[str, Any]:
        """Return a plain answer."""
        refused = answer.finish == "refusal"
        message: dict[str, Any] = {
            "role": "assistant",
            "content": None if refused or (answer.calls and not answer.pieces) else answer.text,
            "refusal": answer.text if refused else None,
            "annotations": [],
        }
        if answer.reasoning:
            message["reasoning_content"] = answer.thought
        if answer.calls:
            message["tool_calls"] = [_call(call, call.arguments) for call in answer.calls]
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(answer)}
        return {
            **_frame(answer, "chat.completion"),
            "choices": [choice],
            "usage": _usage(answer),
            "service_tier": "default",
        }

    def events(self, answer: Answer) -> Iterator[Event]:
        """Yield the chunks of a stream."""
        field = "refusal" if answer.finish == "refusal" else "content"
        content = None if answer.calls and not answer.pieces else ""
        yield Event(_chunk(answer, {"role": "assistant", "content": content, "refusal": None}))
        for piece in answer.reasoning:
            yield Event(_chunk(answer, {"reasoning_content": piece}), 1)
        for piece in answer.pieces:
            yield Event(_chunk(answer, {field: piece}), 1)
        for index, call in enumerate(answer.calls):
            yield Event(_chunk(answer, {"tool_calls": [{"index": index, **_call(call, "")}]}), 1)
            for piece in call.pieces:
                yield Event(
                    _chunk(answer, {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}), 1
                )
        if answer.failure is not None:
            return
        yield Event(_chunk(answer, {}, _finish(answer)))
        if answer.include_usage:
            frame = _frame(answer, "chat.completion.chunk")
            yield Event(event({**frame, "choices": [], "usage": _usage(answer)}))
        yield Event(b"data: [DONE]\n\n")

    def failure(self, failure: Failure, request_id: str) -> dict[str, Any]:  # noqa: ARG002 - it is in the headers
        """Return the body of an error."""
        wording = self.wording(failure)
        return {
            "error": {
                "message": wording.message,
                "type": wording.type,
                "param": None,
                "code": wording.code,
            }
        }

    def failure_event(self, failure: Failure, request_id: str, number: int) -> bytes:  # noqa: ARG002 - not numbered
        """Return the chunk of an error."""
        return event(self.failure(failure, request_id))

    def headers(self, request_id: str, limits: Mapping[str, LimitState]) -> dict[str, str]:
        """Return the id and the rate limits."""
        headers = {}
        for name, state in limits.items():
            headers[f"x-ratelimit-limit-{name}"] = str(state.limit)
            headers[f"x-ratelimit-remaining-{name}"] = str(state.remaining)
            headers[f"x-ratelimit-reset-{name}"] = _duration(state.reset)
        return {"x-request-id": f"req_{request_id}", "openai-version": "2020-10-01", **headers}

    def failure_headers(self, failure: Failure) -> dict[str, str]:
        """Return when to retry."""
        headers = super().failure_headers(failure)
        if failure.retry_after is not None:
            headers["retry-after-ms"] = f"{failure.retry_after * 1000:.0f}"
        return headers

    def model(self, name: str) -> dict[str, Any]:
        """Return one model."""
        return {"id": name, "object": "model", "created": RELEASED, "owned_by": "ultra"}

    def models(self, names: Sequence[str], query: Mapping[str, str]) -> dict[str, Any]:  # noqa: ARG002 - one page
        """Return the list of models."""
        return {"object": "list", "data": [self.model(name) for name in names]}


class _OpenRouter(OpenAIChat):
    """``POST /api/v1/chat/completions``: OpenAI's protocol, with hints of what to cache."""

    name = "openrouter"
    takes_hints = True


OPENAI: Final[Protocol] = OpenAIChat()
OPENROUTER: Final[Protocol] = _OpenRouter()


def _check_calls(messages: Sequence[_Message]) -> None:
    """Refuse results without calls, and calls without results, in OpenAI's words."""
    waiting: dict[str, None] = {}
    for number, message in enumerate(messages):
        if message.role == "tool":
            if message.tool_call_id is None:
                raise bad_request(f"Missing required parameter: 'messages[{number}].tool_call_id'.")
            if message.tool_call_id not in waiting:
                raise bad_request(
                    "Invalid parameter: messages with role 'tool' must be a response to a preceeding "
                    f"message with 'tool_calls' (messages[{number}])."
                )
            del waiting[message.tool_call_id]
        elif waiting:
            break
        else:
            waiting = dict.fromkeys(call.id for call in message.tool_calls or ())
    if waiting:
        raise bad_request(
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
            "'tool_call_id'. The following tool_call_ids did not have response messages: "
            + ", ".join(waiting)
        )


def _message(given: _Message, number: int, takes_hints: bool) -> Message:  # noqa: FBT001 - as the protocol has it
    where = f"messages[{number}]"
    media = []
    for place, part in enumerate(given.parts):
        if part.cache_control is not None and not takes_hints:
            raise bad_request(f"Unknown parameter: '{where}.content[{place}].cache_control'.")
        if part.type not in {"text", "refusal"} and given.role != "user":
            raise bad_request(
                f"Invalid '{where}'. Image URLs are only allowed for messages with role 'user', but this "
                f"message with role '{given.role}' contains an image URL."
            )
        match part:
            case _Part(type="image_url", image_url=_Url(url)):
                media.append(from_url("image", url, f"{where}.content[{place}].image_url.url"))
            case _Part(type="file", file=_File() as file):
                if not takes_hints and not (file.file_data or "data:").startswith("data:"):
                    raise bad_request(
                        f"Invalid '{where}.content[{place}].file.file_data'. Expected base64 data."
                    )
                if file.file_data is not None:
                    media.append(
                        from_url("document", file.file_data, f"{where}.content[{place}].file.file_data")
                    )
            case _Part(type="text" | "refusal"):
                pass
            case _:
                raise bad_request(f"Invalid value: '{part.type}' ({where}.content[{place}].type).")
    calls = tuple(
        Call(call.function.name, call.function.arguments, call.id) for call in given.tool_calls or ()
    )
    if given.role == "tool":
        result = ToolResult(given.tool_call_id or "", text=given.text)
        return Message("tool", "", tuple(media), results=(result,))
    hinted = any(part.cache_control is not None for part in given.parts)
    return Message(given.role, given.text, tuple(media), calls, cached=hinted)


def _tool(given: _Definition) -> Tool:
    return tool_of(given.name, given.description, given.parameters)


def _schema(given: _Format | None) -> dict[str, Any] | None:
    if given is None or given.type == "text":
        return None
    return ANY_OBJECT if given.json_schema is None else given.json_schema.schema


def _call(call: WrittenCall, arguments: str) -> dict[str, Any]:
    function = {"name": call.name, "arguments": arguments}
    return {"id": call.id_with("call_"), "type": "function", "function": function}


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
