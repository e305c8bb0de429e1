"""A conversation as text, for clients that take only a prompt, and for models that see no images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from ultra.messages.chat import FilePart, ImagePart, ReasoningPart, TextPart, leading_system

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ultra.messages.chat import ChatMessage, Part

__all__ = ["as_text", "told", "without_media"]

_NAMES: Final = {"system": "System", "user": "User", "assistant": "Assistant", "tool": "Tool result"}


def as_text(messages: Sequence[ChatMessage]) -> str:
    """Return `messages` as one prompt: a single message as its text, several ones with the roles named.

    Images and documents are told in words; reasoning is left out. System messages at the beginning stand
    ahead of the rest, without a name.
    """
    count = leading_system(messages)
    rest = messages[count:]
    said = [*map(_content, messages[:count]), *map(_content if len(rest) == 1 else _named, rest)]
    return "\n\n".join(said)


def told(part: Part) -> str:
    """Return what to say in place of a part to a reader that gets only text."""
    match part:
        case TextPart():
            return part.text
        case ImagePart():
            return f"[An image ({_kind(part)}) stood here, which is not shown.]"
        case FilePart():
            if part.media_type == "text/plain" and part.data is not None:
                return part.data.decode("utf-8", "replace")
            name = f" {part.name!r}" if part.name else ""
            return f"[A file{name} ({_kind(part)}) stood here, which is not shown.]"
        case ReasoningPart():
            return ""


def without_media(
    messages: Sequence[ChatMessage], *, images: bool = False, files: bool = False
) -> tuple[ChatMessage, ...]:
    """Return `messages` with images and documents told in words, but for those that are kept.

    Args:
        messages: the conversation.
        images: whether images stay.
        files: whether documents stay.
    """

    def spoken(part: Part) -> Part:
        kept = (isinstance(part, ImagePart) and images) or (isinstance(part, FilePart) and files)
        return TextPart(told(part)) if isinstance(part, ImagePart | FilePart) and not kept else part

    return tuple(
        message
        if isinstance(message.content, str)
        else replace(message, content=tuple(map(spoken, message.content)))
        for message in messages
    )


def _named(message: ChatMessage) -> str:
    said = [_content(message)]
    said += [f"[calls {call.name}({call.arguments})]" for call in message.tool_calls]
    name = _NAMES[message.role]
    if message.role == "tool" and message.name:
        name = f"{name} of {message.name}"
    return f"{name}: " + "\n".join(filter(None, said))


def _content(message: ChatMessage) -> str:
    if isinstance(message.content, str):
        return message.content
    return "\n".join(filter(None, map(told, message.content)))


def _kind(part: ImagePart | FilePart) -> str:
    return part.media_type or "at an address"
