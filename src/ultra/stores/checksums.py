"""Checksums of what stores keep: a bit that is wrong inside a text would not be seen otherwise.

A CRC of 32 bits finds each change within 32 bits in a row, and all but one of four thousand million others.
It guards against faults of disks and memory, not against people. Earlier versions have written none.
"""

from __future__ import annotations

from typing import Final
from zlib import crc32

__all__ = ["checksum", "is_intact", "sealed", "unsealed"]

_SEAL: Final = b"\xc1"
"""A byte that begins no msgpack: a checksum follows, and then what it is of."""

_BEGIN: Final = 5


def checksum(*parts: bytes) -> int:
    """Return the checksum of these bytes, one behind the other."""
    found = 0
    for part in parts:
        found = crc32(part, found)
    return found


def is_intact(known: object, *parts: bytes) -> bool:
    """Return whether these bytes have this checksum. None: they were written without one."""
    return known is None or (type(known) is int and known == checksum(*parts))


def sealed(encoded: bytes) -> bytes:
    """Return encoded msgpack with its checksum in front."""
    return _SEAL + checksum(encoded).to_bytes(4) + encoded


def unsealed(kept: bytes | bytearray | memoryview) -> bytes | bytearray | memoryview | None:
    """Return what was sealed, or what an earlier version kept without a seal; None: it was changed."""
    if kept[:1] != _SEAL:
        return kept
    encoded = memoryview(kept)[_BEGIN:]
    return encoded if crc32(encoded) == int.from_bytes(kept[1:_BEGIN]) else None
