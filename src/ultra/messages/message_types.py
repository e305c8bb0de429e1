"""Checks of the types inside a caller's own `ChatMessage`s, which Python does not check."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct, structs

from ultra.errors import BadCall
from ultra.messages.chat import (
    ChatMessage,
    FilePart,
    ImagePart,
    Part,
    ReasoningPart,
    Role,
    TextPart,
    ToolCall,
)

__all__ = ["checked_message"]

S = TypeVar("S", bound=Struct)

_REMEDY: Final = "give text, or a tuple of TextPart, ImagePart, FilePart and ReasoningPart objects"


class _Rest(Struct):
    """All of a message but what has parts."""

    role: Role
    tool_call_id: str | None
    name: str | None
    is_error: bool


def checked_message(given: ChatMessage, where: str) -> ChatMessage:
    """Return `given` with tuples in place of lists, None as no content, and arguments of calls as JSON.

    Raises:
        BadCall: something in it is of a wrong type; the message says where, and what to give.
    """
    rest = _checked(
        {
            "role": given.role,
            "tool_call_id": given.tool_call_id,
            "name": given.name,
            "is_error": given.is_error,
        },
        _Rest,
        where,
    )
    calls: object = given.tool_calls
    if not isinstance(calls, list | tuple):
        kind = type(calls).__name__
        raise BadCall(f"{where}.tool_calls is of type {kind}; give a tuple of ToolCall objects")
    return ChatMessage(
        rest.role,
        _content(given.content, f"{where}.content"),
        tool_calls=tuple(_call(each, f"{where}.tool_calls[{index}]") for index, each in enumerate(calls)),
        tool_call_id=rest.tool_call_id,
        name=rest.name,
        is_error=rest.is_error,
    )


def _content(given: object, where: str) -> str | tuple[Part, ...]:
    if given is None or isinstance(given, str):
        return given or ""
    if not isinstance(given, list | tuple):
        raise BadCall(f"{where} is of type {type(given).__name__}; {_REMEDY}")
    return tuple(_part(each, f"{where}[{index}]") for index, each in enumerate(given))


def _part(given: object, where: str) -> Part:
    if not isinstance(given, TextPart | ImagePart | FilePart | ReasoningPart):
        raise BadCall(f"{where} is of type {type(given).__name__}; {_REMEDY}")
    return _checked(structs.asdict(given), type(given), where)


def _call(given: object, where: str) -> ToolCall:
    if not isinstance(given, ToolCall):
        raise BadCall(f"{where} is of type {type(given).__name__}; give a ToolCall object")
    values = structs.asdict(given)
    if isinstance(given.arguments, Mapping):
        try:
            values["arguments"] = msgspec.json.encode(given.arguments).decode()
        except (TypeError, ValueError, RecursionError) as error:
            raise BadCall(f"{where}.arguments cannot be written as JSON: {error}") from None
    return _checked(values, ToolCall, where)


def _checked(values: dict[str, Any], kind: type[S], where: str) -> S:
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        text, _, path = str(error).partition(" - at `$")
        raise BadCall(f"{where}{path.removesuffix('`')}: {text}") from None
