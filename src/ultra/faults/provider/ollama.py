"""Ollama's native chat."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal

import msgspec
from msgspec import Struct

from ultra.faults.provider.asked_tools import ANY_OBJECT, tool_of
from ultra.faults.provider.media_reading import from_base64
from ultra.faults.provider.neutral import Call, Message, Question, ToolResult, call_tokens
from ultra.faults.provider.protocol import Event, Protocol, Wording, bearer, decode, json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from starlette.requests import Request

    from ultra.faults.provider.neutral import Answer, Failure, FailureKind

__all__ = ["OLLAMA"]


class _Function(Struct):
    name: str
    arguments: dict[str, Any] = {}


class _Call(Struct):
    function: _Function
    id: str = ""


class _Message(Struct):
    role: str
    content: str = ""
    images: list[str] | None = None
    tool_calls: list[_Call] | None = None
    tool_name: str = ""
    tool_call_id: str = ""


class _Definition(Struct):
    name: str
    description: str = ""
    parameters: dict[str, Any] = {}


class _Tool(Struct):
    function: _Definition


class _Options(Struct):
    num_predict: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None


class _Request(Struct):
    model: Annotated[str, msgspec.Meta(min_length=1)]
    messages: Annotated[list[_Message], msgspec.Meta(min_length=1)]
    stream: bool | None = None
    options: _Options | None = None
    tools: list[_Tool] | None = None
    format: Literal["json", ""] | dict[str, Any] | None = None


_decoder: Final = msgspec.json.Decoder(_Request)

_DURATIONS: Final = {
    "total_duration": 50_000_000,
    "load_duration": 10_000_000,
    "prompt_eval_duration": 10_000_000,
    "eval_duration": 30_000_000,
}
"""Nanoseconds that every answer is said to have taken."""


class _Ollama(Protocol):
    """``POST /api/chat``. It streams unless told not to, and takes requests without a key."""

    name = "ollama"
    stream_type = "application/x-ndjson"
    json_type = "application/json; charset=utf-8"
    wordings: ClassVar[Mapping[FailureKind, Wording]] = {
        "bad_request": Wording(400, "", "invalid request"),
        "auth": Wording(401, "", "unauthorized"),
        "permission": Wording(403, "", "forbidden"),
        "quota": Wording(402, "", "you have reached your usage limit"),
        "not_found": Wording(404, "", "model not found"),
        "too_large": Wording(413, "", "request body too large"),
        "rate_limit": Wording(429, "", "too many concurrent requests"),
        "timeout": Wording(504, "", "timed out waiting for the model"),
        "server": Wording(500, "", "an error was encountered while running the model"),
        "overloaded": Wording(503, "", "server busy, please try again. maximum pending requests exceeded"),
    }

    def key(self, request: Request) -> str | None:
        return bearer(request)

    def check_key(self, key: str | None, expected: str | None) -> Failure | None:
        return super().check_key(key, expected) if expected is not None else None

    def read(self, request: Request, body: bytes) -> Question:  # noqa: ARG002 - the body says it all
        asked = decode(_decoder, body)
        options = asked.options or _Options()
        limit = options.num_predict
        messages = [_message(each, number) for number, each in enumerate(asked.messages)]
        definitions = [tool.function for tool in asked.tools or ()]
        return Question(
            model=asked.model,
            messages=tuple(each for each in messages if each.role != "system"),
            system="\n".join(each.text for each in messages if each.role == "system"),
            stream=asked.stream is not False,
            max_tokens=limit if limit is not None and limit > 0 else None,  # -1 and -2 mean no limit
            stop=(options.stop,) if isinstance(options.stop, str) else tuple(options.stop or ()),
            seed=options.seed,
            tools=tuple(tool_of(each.name, each.description, each.parameters) for each in definitions),
            schema=ANY_OBJECT if asked.format == "json" else asked.format or None,
        )

    def whole(self, answer: Answer) -> dict[str, Any]:
        thought = {"thinking": answer.thought} if answer.reasoning else {}
        calls = {"tool_calls": _calls(answer)} if answer.whole_calls else {}
        return {**_line(answer, content=answer.text, **thought, **calls), **_end(answer)}

    def events(self, answer: Answer) -> Iterator[Event]:
        for piece in answer.reasoning:
            yield Event(_encode({**_line(answer, content="", thinking=piece), "done": False}), 1)
        for piece in answer.pieces:
            yield Event(_encode({**_line(answer, content=piece), "done": False}), 1)
        for call, tokens in zip(_calls(answer), map(call_tokens, answer.whole_calls), strict=True):
            yield Event(_encode({**_line(answer, content="", tool_calls=[call]), "done": False}), tokens)
        if answer.failure is None:
            yield Event(_encode({**_line(answer, content=""), **_end(answer)}))

    def failure(self, failure: Failure, request_id: str) -> dict[str, Any]:  # noqa: ARG002 - it has none
        return {"error": self.wording(failure).message}

    def failure_event(self, failure: Failure, request_id: str, number: int) -> bytes:  # noqa: ARG002 - not numbered
        return _encode(self.failure(failure, request_id))

    def model(self, name: str) -> dict[str, Any]:
        details = {"format": "gguf", "family": "ultra", "parameter_size": "1B", "quantization_level": "Q8_0"}
        return {
            "name": name,
            "model": name,
            "modified_at": "2025-01-01T00:00:00Z",
            "size": 1_000_000_000,
            "digest": "0" * 64,
            "details": details,
        }

    def models(self, names: Sequence[str], query: Mapping[str, str]) -> dict[str, Any]:  # noqa: ARG002 - one page
        return {"models": [self.model(name) for name in names]}


OLLAMA: Final[Protocol] = _Ollama()


def _message(given: _Message, number: int) -> Message:
    where = f"messages[{number}].images"
    media = tuple(from_base64("image", image, None, where) for image in given.images or ())
    calls = tuple(
        Call(call.function.name, call.function.arguments, call.id) for call in given.tool_calls or ()
    )
    if given.role == "tool":
        result = ToolResult(given.tool_call_id, given.tool_name, given.content)
        return Message("tool", "", media, results=(result,))
    return Message(given.role, given.content, media, calls)


def _calls(answer: Answer) -> list[dict[str, Any]]:
    return [
        {
            "id": call.id_with("call_"),
            "function": {"index": index, "name": call.name, "arguments": call.object},
        }
        for index, call in enumerate(answer.whole_calls)
    ]


def _line(answer: Answer, **message: object) -> dict[str, Any]:
    created = answer.created.isoformat().replace("+00:00", "Z")
    return {"model": answer.model, "created_at": created, "message": {"role": "assistant", **message}}


def _end(answer: Answer) -> dict[str, Any]:
    return {
        "done_reason": "length" if answer.finish == "length" else "stop",
        "done": True,
        **_DURATIONS,
        "prompt_eval_count": answer.input,
        "eval_count": answer.output,
    }


def _encode(payload: object) -> bytes:
    return json(payload) + b"\n"
