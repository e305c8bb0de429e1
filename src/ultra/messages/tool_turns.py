"""Turns in which tools were called, told in words to models that have no tools."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from ultra.messages.chat import ChatMessage, TextPart

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ultra.messages.chat import Part

__all__ = ["with_tool_turns_told"]

_INTRODUCTION = "[Tools were called for this. The calls, and what they gave:]"


def with_tool_turns_told(messages: Sequence[ChatMessage]) -> tuple[ChatMessage, ...]:
    """Return `messages` without calls of tools: what they gave stands at the end of the user's message.

    A model that has no tools can so go on with a conversation in which another one has called some. Some
    providers refuse calls and results in a request without tools. Images among the results stay images.
    """
    told: list[ChatMessage] = []
    notes: list[Part] = []
    for message in messages:
        if message.tool_calls:
            notes += [TextPart(message.text)] if message.text else []
            notes += [TextPart(f"{call.name}({call.arguments})") for call in message.tool_calls]
        elif message.role == "tool":
            state = "failed" if message.is_error else "gave"
            notes += [TextPart(f"{message.name or 'the tool'} {state}:"), *message.parts]
        else:
            _tell(told, notes)
            told.append(message)
    _tell(told, notes)
    return tuple(told)


def _tell(told: list[ChatMessage], notes: list[Part]) -> None:
    """Append the notes to the last message of the user, and empty them."""
    if not notes:
        return
    asked = told.pop() if told and told[-1].role == "user" else ChatMessage("user")
    parts: list[Part] = []
    texts: list[str] = []  # of the last part, if that is text: joined once, or each would cost as much as all
    for part in (*asked.parts, TextPart(_INTRODUCTION), *notes):
        if isinstance(part, TextPart) and texts:
            texts += ["\n\n" if part.text == _INTRODUCTION else "\n", part.text]
            continue
        _end_text(parts, texts)
        parts.append(part)
        if isinstance(part, TextPart):
            texts.append(part.text)
    _end_text(parts, texts)
    only = parts[0]
    text = only.text if len(parts) == 1 and isinstance(only, TextPart) and not only.cache_control else None
    told.append(replace(asked, content=tuple(parts) if text is None else text))
    notes.clear()


def _end_text(parts: list[Part], texts: list[str]) -> None:
    """Give the last part, which is text, all of its `texts`, and empty them."""
    if len(texts) > 1 and isinstance(parts[-1], TextPart):
        parts[-1] = replace(parts[-1], text="".join(texts))
    texts.clear()
