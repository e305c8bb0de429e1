"""Messages in the JSON of the semantic conventions for generative AI, for who wants content in traces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from ultra.messages.chat import ReasoningPart
from ultra.messages.rendering import told

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ultra.messages.chat import ChatMessage, ToolCall
    from ultra.messages.results import Completion

__all__ = ["input_messages", "output_messages", "system_instructions"]


def system_instructions(messages: Sequence[ChatMessage]) -> str | None:
    """Return the system messages; None: there are none."""
    texts = [_text(message.text) for message in messages if message.role == "system"]
    return _json(texts) if texts else None


def input_messages(messages: Sequence[ChatMessage]) -> str:
    """Return the other messages. Images and documents are told in words, without their bytes."""
    return _json([_message(message) for message in messages if message.role != "system"])


def output_messages(completion: Completion) -> str:
    """Return the answer."""
    parts = [_text(completion.content)] if completion.content else []
    parts += [_call(call) for call in completion.tool_calls]
    reason = completion.finish_reason or "stop"
    return _json([{"role": "assistant", "parts": parts, "finish_reason": reason}])


def _message(message: ChatMessage) -> dict[str, Any]:
    if message.role == "tool":
        answer = {"type": "tool_call_response", "id": message.tool_call_id, "response": message.text}
        return {"role": "tool", "parts": [answer]}
    parts = [_text(told(part)) for part in message.parts if not isinstance(part, ReasoningPart)]
    return {"role": message.role, "parts": [*parts, *map(_call, message.tool_calls)]}


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "content": text}


def _call(call: ToolCall) -> dict[str, Any]:
    return {"type": "tool_call", "id": call.id, "name": call.name, "arguments": call.arguments}


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
