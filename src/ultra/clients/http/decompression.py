"""Undoing the compression of an answer, never further than the caller allows."""

from __future__ import annotations

import zlib
from typing import Final

__all__ = ["ACCEPTED", "Unpacker"]

ACCEPTED: Final = "gzip"
"""What to ask for: one coding that every server knows, and that streams."""

_ANY_HEADER: Final = 32 + zlib.MAX_WBITS  # gzip's or zlib's own


class Unpacker:
    """Unpacks the pieces of one answer. Raises `ValueError` for a coding that was not asked for."""

    def __init__(self, coding: str) -> None:
        name = coding.strip().lower()
        if name not in {"", "identity", "gzip", "x-gzip", "deflate"}:
            raise ValueError(f"content-encoding {coding!r} was not asked for")
        self._inflater = None if name in {"", "identity"} else zlib.decompressobj(_ANY_HEADER)

    def unpack(self, piece: bytes, limit: int) -> bytes:
        """Return what `piece` holds, or just over `limit` bytes if it holds more.

        Raises `ValueError` if it was packed in no known way.
        """
        if self._inflater is None:
            return piece
        try:
            return self._inflater.decompress(piece, limit + 1)
        except zlib.error as error:
            raise ValueError(str(error)) from None
