"""Asking whether there is memory, for libraries that crash the process where there is none."""

from __future__ import annotations

from typing import Final

__all__ = ["ensure_memory"]

_SMALL: Final = 2**16
"""Bytes for which the allocator has room, or what asks for them is nothing that a stranger decides."""


def ensure_memory(size: int) -> None:
    """Raise `MemoryError` if `size` more bytes cannot be had at this moment.

    msgspec (0.22 and before) ends the process where it has no memory for a long text that it decodes. The
    bytes are asked for and given back, untouched, so this takes microseconds.
    """
    if size > _SMALL:
        bytes(size + _SMALL)
