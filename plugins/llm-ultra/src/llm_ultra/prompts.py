"""A prompt of llm as a conversation of Ultra, and its options as arguments of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, cast

import llm
from llm.parts import AttachmentPart
from llm.parts import TextPart as LLMText
from pydantic import Field, field_validator

from ultra.messages.chat import ChatMessage, FilePart, ImagePart, Part, TextPart
from ultra.strategies.catalog import make_strategy, strategy_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llm.models import Attachment, Prompt
    from llm.parts import Message

__all__ = ["ATTACHMENTS", "UltraOptions", "arguments_of", "conversation_of"]

ATTACHMENTS: Final = frozenset({"image/png", "image/jpeg", "image/webp", "image/gif", "application/pdf"})

_RUN: Final = ("timeout", "quorum", "grace", "max_cost")
_SAMPLING: Final = ("temperature", "max_tokens", "seed")


class UltraOptions(llm.Options):
    """The options of a prompt; what is left out is as the ensemble has it."""

    strategy: str | None = Field(
        description="How to ask and merge, in place of the ensemble's own way", default=None
    )
    timeout: float | None = Field(description="Seconds that the run may take", gt=0, default=None)
    quorum: int | Literal["all"] | None = Field(
        description="How many models must answer, or all", default=None
    )
    grace: float | None = Field(
        description="Seconds for the others, once the quorum has answered", ge=0, default=None
    )
    max_cost: float | None = Field(description="Dollars that the run may cost", gt=0, default=None)
    temperature: float | None = Field(description="How freely each model writes", ge=0, default=None)
    max_tokens: int | None = Field(description="How many tokens each model may write", ge=1, default=None)
    seed: int | None = Field(description="For models that can repeat an answer", default=None)

    @field_validator("quorum", mode="before")
    @classmethod
    def _read_number(cls, given: object) -> object:
        return int(given) if isinstance(given, str) and given.isdecimal() else given

    @field_validator("strategy")
    @classmethod
    def _check_strategy(cls, given: str | None) -> str | None:
        if given is not None and given not in strategy_names():
            raise ValueError(f"unknown strategy {given!r}; there are: {', '.join(strategy_names())}")
        return given


def arguments_of(prompt: Prompt) -> dict[str, Any]:
    """Return the arguments of a run that a prompt's options and schema ask for."""
    options = cast("UltraOptions", prompt.options)
    found = {name: value for name in _RUN if (value := getattr(options, name)) is not None}
    sampling = {name: value for name in _SAMPLING if (value := getattr(options, name)) is not None}
    if sampling:
        found["options"] = sampling
    if prompt.schema is not None:
        found["output"] = prompt.schema
    if options.strategy is not None:
        found["strategy"] = make_strategy(options.strategy)
    return found


def conversation_of(messages: Sequence[Message]) -> list[ChatMessage]:
    """Return the messages of a prompt, the history first.

    What has no meaning for other models is left out: reasoning, and the calls of tools and their results.
    """
    found: list[ChatMessage] = []
    for message in messages:
        if message.role not in {"system", "user", "assistant"}:
            continue
        parts = [part for each in message.parts if (part := _part(each)) is not None]
        if parts:
            role: Any = message.role
            content = parts[0].text if len(parts) == 1 and isinstance(parts[0], TextPart) else tuple(parts)
            found.append(ChatMessage(role, content))
    return found


def _part(given: object) -> Part | None:
    if isinstance(given, LLMText):
        return TextPart(given.text) if given.text else None
    if isinstance(given, AttachmentPart) and given.attachment is not None:
        return _attached(given.attachment)
    return None


def _attached(attachment: Attachment) -> Part:
    media_type: str | None = attachment.resolve_type()  # type: ignore[no-untyped-call]
    kind = ImagePart if str(media_type).startswith("image/") else FilePart
    if attachment.url and not attachment.content and not attachment.path:
        return kind(url=attachment.url, media_type=media_type)
    data: bytes = attachment.content_bytes()  # type: ignore[no-untyped-call]
    return kind(data=data, media_type=media_type)
