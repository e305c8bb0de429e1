"""The messages of a conversation, and the parts that they are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from msgspec import Struct

from ultra._support.checks import check_writable
from ultra.messages.media import file_source, image_source

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = [
    "ChatMessage",
    "FilePart",
    "ImagePart",
    "Part",
    "ReasoningPart",
    "Role",
    "TextPart",
    "ToolCall",
    "leading_system",
]

Role = Literal["system", "user", "assistant", "tool"]
"""Who wrote a message: the application, the user, the model, or a tool that the model called."""


class TextPart(Struct, frozen=True, gc=False, tag="text"):
    """Text. `cache_control` is a hint to providers that keep prompts, such as ``{"type": "ephemeral"}``."""

    text: str
    cache_control: dict[str, str] | None = None


class ImagePart(Struct, frozen=True, gc=False, tag="image"):
    """An image: its bytes with their media type, or the address at which it is.

    `detail` is OpenAI's word for how closely the model looks: ``low``, ``high`` or ``auto``. Use `of` to make
    one: it finds the media type by the content.
    """

    data: bytes | None = None
    url: str | None = None
    media_type: str | None = None
    detail: str | None = None
    cache_control: dict[str, str] | None = None

    @classmethod
    def of(cls, source: bytes | str | Path, *, detail: str | None = None) -> ImagePart:
        """Return the image of `source`: its bytes, a path, a data URL or an address (http, https).

        Raises:
            BadCall: it is no image of a known type (PNG, JPEG, GIF, WebP), it is larger than 20 MiB, or the
                file cannot be read.
        """
        found = image_source(source)
        return cls(found.data, found.url, found.media_type, detail)

    def __repr__(self) -> str:
        return f"ImagePart({_shown(self)})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return what it is, without its bytes."""
        return [("", _shown(self))]


class FilePart(Struct, frozen=True, gc=False, tag="file"):
    """A document: its bytes with their media type, or the address at which it is. Use `of` to make one."""

    data: bytes | None = None
    url: str | None = None
    media_type: str | None = None
    name: str | None = None
    cache_control: dict[str, str] | None = None

    @classmethod
    def of(cls, source: bytes | str | Path, *, name: str | None = None) -> FilePart:
        """Return the document of `source`: its bytes, a path, a data URL or an address (http, https).

        Raises:
            BadCall: it is neither a PDF nor text, it is larger than 32 MiB, the file cannot be read, or its
                name is not in UTF-8 (give another `name`).
        """
        found = file_source(source)
        name = name or found.name
        check_writable("the name of the file", name)
        return cls(found.data, found.url, found.media_type, name)

    def __repr__(self) -> str:
        return f"FilePart({_shown(self)}, name={self.name!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return what it is, without its bytes."""
        return [("", _shown(self)), ("name", self.name)]


class ReasoningPart(Struct, frozen=True, gc=False, tag="reasoning"):
    """What a model thought before it wrote, as its provider wants it back in the next turn.

    `provider` is the dialect that made it, and the only one that gets it back. `signature` proves the text;
    `encrypted` stands in place of it; `id` names the item.
    """

    text: str = ""
    provider: str = ""
    signature: str | None = None
    encrypted: str | None = None
    id: str | None = None


class ToolCall(Struct, frozen=True, gc=False):
    """A call of a tool, as a model asks for it. `arguments` is the JSON that the model wrote.

    `signature` is what the provider wants back with it (Gemini).
    """

    id: str
    name: str
    arguments: str = "{}"
    signature: str | None = None

    def __str__(self) -> str:
        return f"{self.name}({self.arguments})"


Part: TypeAlias = TextPart | ImagePart | FilePart | ReasoningPart
"""A part of a message's content."""


class ChatMessage(Struct, frozen=True, gc=False):
    """One message of a conversation: ``ChatMessage("user", "What is the capital of France?")``.

    Attributes:
        role: who wrote it.
        content: text, or parts in their order.
        tool_calls: what an assistant's message calls.
        tool_call_id: for a tool's message, the call that it answers.
        name: for a tool's message, the name of the tool; else of who wrote it.
        is_error: for a tool's message, whether the tool failed.
    """

    role: Role
    content: str | tuple[Part, ...] = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None
    is_error: bool = False

    @property
    def text(self) -> str:
        """The text of the message: of several text parts, joined by line ends."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content if isinstance(part, TextPart))

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts of the content; text that is not empty is one part."""
        if isinstance(self.content, str):
            return (TextPart(self.content),) if self.content else ()
        return self.content


def leading_system(messages: Sequence[ChatMessage]) -> int:
    """Return how many of `messages`, at their beginning, are of the system."""
    for count, message in enumerate(messages):
        if message.role != "system":
            return count
    return len(messages)


def _shown(part: ImagePart | FilePart) -> str:
    where = f"{len(part.data)} bytes" if part.data is not None else repr((part.url or "")[:80])
    return f"{where}, media_type={part.media_type!r}"
