"""Decoding JSON that somebody else wrote, within the memory that its length lets one expect.

Small objects and lists take twenty times as much memory as their text: 31 MiB of ``[[],[],…]`` become a
gigabyte.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

__all__ = ["MOST_VALUES", "decode_json", "has_too_many_values"]

MOST_VALUES: Final = 1_000_000
"""Objects and lists of one text."""


def has_too_many_values(text: str | bytes) -> bool:
    """Return whether JSON may have more than `MOST_VALUES` objects and lists; those in texts count, too."""
    if len(text) <= MOST_VALUES:
        return False
    begins = (
        text.count("{") + text.count("[") if isinstance(text, str) else text.count(b"{") + text.count(b"[")
    )
    return begins > MOST_VALUES


def decode_json(text: str | bytes) -> Any:  # noqa: ANN401 - any JSON
    """Return JSON decoded.

    Raises:
        msgspec.DecodeError: it is no JSON.
        ValueError: it has too many objects and lists, or cannot be encoded.
        RecursionError: it has too many levels.
    """
    if has_too_many_values(text):
        raise ValueError(f"it has more than {MOST_VALUES} objects and lists")
    return msgspec.json.decode(text)
