"""Messages and tools in the form of OpenAI's chat completions, which most APIs and programs know."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from ultra.messages.chat import FilePart, ImagePart, ReasoningPart, TextPart

if TYPE_CHECKING:
    from collections.abc import Iterable

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


def messages_as_openai(messages: Iterable[ChatMessage]) -> list[dict[str, Any]]:
    """Return `messages` as OpenAI's chat completions take them. Reasoning is left out."""
    return [message_as_openai(message) for message in messages]


def message_as_openai(message: ChatMessage) -> dict[str, Any]:
    """Return one message as OpenAI's chat completions take it. Reasoning is left out."""
    content: str | list[dict[str, Any]] | None
    if isinstance(message.content, str):
        content = message.content
    else:
        content = [_part(part) for part in message.content if not isinstance(part, ReasoningPart)]
    given: dict[str, Any] = {"role": message.role, "content": content}
    if message.tool_calls:
        given["content"] = content or None
        given["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
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


def _part(part: Part) -> dict[str, Any]:
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
    if not isinstance(part, ReasoningPart) and part.cache_control is not None:
        given["cache_control"] = part.cache_control
    return given
