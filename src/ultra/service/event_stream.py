"""The pieces of an event stream: data, with a name or without, and comments. Never `retry:`.

After a line of `id:` or `retry:`, OpenAI's client for Python takes the next comment for an event without
data, and fails. So the protocols of providers have no ids; Ultra's own has them, by which a browser goes on.
"""

from __future__ import annotations

from typing import Final

import msgspec

__all__ = ["comment", "data_event", "named_event", "with_id"]

_encode: Final = msgspec.json.Encoder().encode


def data_event(value: object) -> bytes:
    """Return an event that has data alone."""
    return b"data: " + _encode(value) + b"\n\n"


def named_event(name: str, value: object) -> bytes:
    """Return an event with a name."""
    return b"event: " + name.encode() + b"\ndata: " + _encode(value) + b"\n\n"


def comment(text: str) -> bytes:
    """Return a comment, which clients skip. It has a frame of its own."""
    return f": {text}\n\n".encode()


def with_id(number: int, event: bytes) -> bytes:
    """Return an event with its number, which a client sends as ``Last-Event-ID`` when it comes back."""
    return b"id: %d\n%b" % (number, event)
