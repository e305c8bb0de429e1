"""Keys for tests of stores, which do not care what was asked."""

from __future__ import annotations

from ultra.messages.request import ModelRequest
from ultra.stores.keys import cache_key

__all__ = ["key_of"]


def key_of(prompt: str) -> bytes:
    """Return the key of a request that is nothing but `prompt`."""
    return cache_key(ModelRequest.of(prompt))
