"""The messages of a conversation, as models take them."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

__all__ = ["ChatMessage", "Role"]

Role = Literal["system", "user", "assistant"]
"""Who wrote a message: the application, the user, or the model."""


class ChatMessage(Struct, frozen=True, gc=False):
    """One message of a conversation: ``ChatMessage("user", "What is the capital of France?")``."""

    role: Role
    content: str
