"""Messages and tools in the form of OpenAI's chat completions, which most APIs and programs know."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace

from ultra.messages.chat import FilePart, ImagePart, ReasoningPart, TextPart
from ultra.messages.tools import arguments_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ultra.messages.chat import ChatMessage, Part
    from ultra.messages.schema import JsonSchema
    from ultra.messages.tools import Tool, ToolChoice

__all__ = [
    "data_url",
    "message_as_openai",
    "messages_as_openai",
    "schema_as_openai",
    "tool_as_openai",
    "tool_choice_as_openai",
]


def messages_as_openai(
    messages: Iterable[ChatMessage],
    *,
    cache_hints: bool = False,
    encode: Callable[[ChatMessage], dict[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """Return `messages` as OpenAI's chat completions take them. Reasoning is left out.

    The API takes only text as the result of a tool, so the images and documents in results follow these as a
    message of the user.

    Args:
        messages: the conversation.
        cache_hints: whether `cache_control` is kept; OpenAI refuses it.
        encode: encodes one message; `message_as_openai` by default.
    """
    given: list[dict[str, Any]] = []
    seen: list[dict[str, Any]] = []  # in results of tools that follow each other
    for message in messages:
        if seen and message.role != "tool":
            given.append({"role": "user", "content": seen})
            seen = []
        if message.role == "tool" and not isinstance(message.content, str):
            media = [part for part in message.content if isinstance(part, ImagePart | FilePart)]
            if media:
                seen.append({"type": "text", "text": _FROM_TOOL.format(call=message.tool_call_id)})
                seen += [_part(part, cache_hints=cache_hints) for part in media]
                texts = [part for part in message.content if isinstance(part, TextPart)]
                message = replace(message, content=tuple(texts) or _SEE_BELOW)  # noqa: PLW2901 - what is sent of it
        given.append(encode(message) if encode else message_as_openai(message, cache_hints=cache_hints))
    return [*given, {"role": "user", "content": seen}] if seen else given


def message_as_openai(message: ChatMessage, *, cache_hints: bool = False) -> dict[str, Any]:
    """Return one message as OpenAI's chat completions take it. Reasoning is left out.

    `cache_hints` says whether `cache_control` is kept.
    """
    content: str | list[dict[str, Any]] | None
    if isinstance(message.content, str):
        content = message.content
    else:
        parts = [part for part in message.content if not isinstance(part, ReasoningPart)]
        content = [_part(part, cache_hints=cache_hints) for part in parts]
        if all(isinstance(part, TextPart) for part in parts) and not any(
            "cache_control" in p for p in content
        ):
            content = _plain(content)
    given: dict[str, Any] = {"role": message.role, "content": content}
    if message.tool_calls:
        given["content"] = content or None
        given["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": arguments_json(call.arguments)},
            }
            for call in message.tool_calls
        ]
    if message.role == "tool":
        given["tool_call_id"] = message.tool_call_id
    elif message.name is not None:
        given["name"] = message.name
    return given


def tool_as_openai(tool: Tool) -> dict[str, Any]:
    """Return a tool as OpenAI's chat completions take it."""
    function: dict[str, Any] = {"name": tool.name, "parameters": tool.parameters}
    if tool.description:
        function["description"] = tool.description
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def tool_choice_as_openai(choice: ToolChoice) -> str | dict[str, Any]:
    """Return which tools must be called as OpenAI's chat completions take it."""
    if choice.mode == "named":
        return {"type": "function", "function": {"name": choice.name}}
    return choice.mode


def schema_as_openai(schema: JsonSchema) -> dict[str, Any]:
    """Return the schema of the answer as the `response_format` of OpenAI's chat completions."""
    return {
        "type": "json_schema",
        "json_schema": {"name": schema.name, "schema": schema.schema, "strict": schema.strict},
    }


def data_url(part: ImagePart | FilePart) -> str:
    """Return the address of an image or a document: its own, or one that holds its bytes (RFC 2397)."""
    if part.data is None:
        return part.url or ""
    return f"data:{part.media_type};base64,{base64.b64encode(part.data).decode()}"


_FROM_TOOL: Final = "From the result of the call {call}:"
_SEE_BELOW: Final = "The result follows in the next message of the user."


def _plain(parts: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """Return no more than one text as it is: many servers take nothing else of an assistant or a tool."""
    return parts if len(parts) > 1 else "".join(part["text"] for part in parts)


def _part(part: Part, *, cache_hints: bool) -> dict[str, Any]:
    given: dict[str, Any]
    match part:
        case TextPart():
            given = {"type": "text", "text": part.text}
        case ImagePart():
            address = {"url": data_url(part)}
            if part.detail is not None:
                address["detail"] = part.detail
            given = {"type": "image_url", "image_url": address}
        case FilePart():
            given = {
                "type": "file",
                "file": {"filename": part.name or "file", "file_data": data_url(part)},
            }
        case ReasoningPart():
            given = {"type": "text", "text": part.text}
    if cache_hints and not isinstance(part, ReasoningPart) and part.cache_control is not None:
        given["cache_control"] = part.cache_control
    return given
