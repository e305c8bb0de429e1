"""The bodies of replies as types, for the description of the service; a test decodes real replies by them.

They are written field by field elsewhere, since some fields are there only for those who ask for them.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

__all__ = [
    "AnthropicErrorReply",
    "ChatChunk",
    "ChatCompletion",
    "Deleted",
    "Described",
    "ErrorReply",
    "Health",
    "ModelEntry",
    "ModelList",
    "Ready",
    "TokenCount",
]


class ErrorBody(Struct, forbid_unknown_fields=True):
    """What went wrong; `param` is the field of the request that is at fault."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None
    ultra: dict[str, Any] | UnsetType = UNSET


class ErrorReply(Struct, forbid_unknown_fields=True):
    """A refusal or a failure."""

    error: ErrorBody


class Health(Struct, forbid_unknown_fields=True):
    """The process lives."""

    status: Literal["ok"]


class Ready(Struct, forbid_unknown_fields=True):
    """Whether requests can be answered, and the state of each model and ensemble."""

    status: Literal["ready", "not ready", "draining", "starting"]
    models: dict[str, Literal["up", "degraded", "down"]] | UnsetType = UNSET
    ensembles: dict[str, bool] | UnsetType = UNSET


class ModelEntry(Struct, forbid_unknown_fields=True):
    """An ensemble or a model; `pricing` are dollars a token, as text."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    context_length: int | None
    architecture: dict[str, list[str]]
    pricing: dict[str, str] | None
    ultra: dict[str, Any]


class ModelList(Struct, forbid_unknown_fields=True):
    """All names that may be asked."""

    object: Literal["list"]
    data: list[ModelEntry]


class ChatFunction(Struct, forbid_unknown_fields=True):
    """The function that a model calls; `arguments` is JSON."""

    name: str
    arguments: str


class ChatToolCall(Struct, forbid_unknown_fields=True):
    """A call of a tool; `index` on streams alone."""

    id: str
    type: Literal["function"]
    function: ChatFunction
    index: int | UnsetType = UNSET


class ChatReplyMessage(Struct, forbid_unknown_fields=True):
    """The answer."""

    role: Literal["assistant"]
    content: str | None
    tool_calls: list[ChatToolCall] | UnsetType = UNSET
    refusal: str | None = None


ChatFinish = Literal["stop", "length", "tool_calls", "content_filter"]


class ChatChoice(Struct, forbid_unknown_fields=True):
    """The only choice."""

    index: int
    message: ChatReplyMessage
    finish_reason: ChatFinish
    logprobs: None = None


class ChatUsage(Struct):
    """The tokens of all calls that were made."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: dict[str, int] | UnsetType | None = UNSET
    completion_tokens_details: dict[str, int] | UnsetType | None = UNSET


class ChatCompletion(Struct, forbid_unknown_fields=True):
    """A whole answer; `ultra` only for those who ask for it."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: ChatUsage
    system_fingerprint: str | None = None
    ultra: dict[str, Any] | UnsetType = UNSET


class ChatDelta(Struct, forbid_unknown_fields=True):
    """The next piece of an answer."""

    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType | None = UNSET
    refusal: str | UnsetType = UNSET
    tool_calls: list[ChatToolCall] | UnsetType = UNSET


class ChatPiece(Struct, forbid_unknown_fields=True):
    """The only choice of a chunk."""

    index: int
    delta: ChatDelta
    finish_reason: ChatFinish | None = None
    logprobs: None = None


class ChatChunk(Struct, forbid_unknown_fields=True):
    """An event of a stream."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChatPiece]
    usage: ChatUsage | UnsetType | None = UNSET
    system_fingerprint: str | None = None
    ultra: dict[str, Any] | UnsetType = UNSET


class Deleted(Struct, forbid_unknown_fields=True):
    """What was deleted."""

    id: str
    object: str
    deleted: bool


class Described(Struct):
    """A description in the form of OpenAPI 3.1."""

    openapi: str
    info: dict[str, Any]
    paths: dict[str, Any]
    components: dict[str, Any]


class AnthropicError(Struct, forbid_unknown_fields=True):
    """What went wrong, in Anthropic's words."""

    type: str
    message: str
    ultra: dict[str, Any] | UnsetType = UNSET


class AnthropicErrorReply(Struct, forbid_unknown_fields=True):
    """A refusal or a failure, in Anthropic's protocol."""

    type: Literal["error"]
    error: AnthropicError
    request_id: str


class TokenCount(Struct, forbid_unknown_fields=True):
    """About how many tokens a request has."""

    input_tokens: int
