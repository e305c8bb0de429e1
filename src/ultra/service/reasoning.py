"""Reasoning that goes to a client and comes back with its next request.

Each provider wants its own form of it back. A protocol has one field for what its own provider wants; that of
any other provider goes there as a sealed text, so that no model gets what another one thought.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec.structs import replace

from ultra.messages.chat import ReasoningPart

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ultra.messages.chat import ChatMessage, Part

__all__ = ["opened", "sealed", "with_reasoning"]

_MARK: Final = "ultra1."

_decode: Final = msgspec.msgpack.Decoder(ReasoningPart).decode
_encode: Final = msgspec.msgpack.Encoder().encode


def sealed(part: ReasoningPart) -> str:
    """Return a part as a text that `opened` reads; it is neither secret nor signed."""
    return _MARK + base64.urlsafe_b64encode(_encode(part)).decode()


def opened(text: str) -> ReasoningPart | None:
    """Return the part that was `sealed`; None: the text is something else."""
    if not text.startswith(_MARK):
        return None
    try:
        return _decode(base64.urlsafe_b64decode(text.removeprefix(_MARK)))
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        return None


def with_reasoning(messages: Iterable[ChatMessage]) -> tuple[ChatMessage, ...]:
    """Return messages whose sealed reasoning is opened, and stands ahead of what it led to."""
    return tuple(_with_reasoning(message) for message in messages)


def _with_reasoning(message: ChatMessage) -> ChatMessage:
    if isinstance(message.content, str):
        return message
    thoughts: list[Part] = []
    others: list[Part] = []
    for part in message.content:
        if isinstance(part, ReasoningPart):
            thoughts.append(_opened_part(part))
        else:
            others.append(part)
    return replace(message, content=(*thoughts, *others)) if thoughts else message


def _opened_part(part: ReasoningPart) -> ReasoningPart:
    found = opened(part.signature or part.encrypted or "")
    return part if found is None else replace(found, text=part.text or found.text)
