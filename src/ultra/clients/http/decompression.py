"""Decompressing a body, never further than the caller allows."""

from __future__ import annotations

import zlib
from typing import Final

__all__ = ["ACCEPTED", "Decompressor"]

ACCEPTED: Final = "gzip"
"""The coding to ask for: every server knows it, and it streams."""

_ANY_HEADER: Final = 32 + zlib.MAX_WBITS  # gzip's or zlib's own


class Decompressor:
    """Decompresses the pieces of one body. Raises `ValueError` for a coding that was not asked for."""

    def __init__(self, coding: str) -> None:
        name = coding.strip().lower()
        if name not in {"", "identity", "gzip", "x-gzip", "deflate"}:
            raise ValueError(f"content-encoding {coding!r} was not asked for")
        self._inflater = None if name in {"", "identity"} else zlib.decompressobj(_ANY_HEADER)

    def feed(self, piece: bytes, limit: int) -> bytes:
        """Return what `piece` holds, or just over `limit` bytes if it holds more.

        Raises `ValueError` if it was compressed in no known way.
        """
        if self._inflater is None:
            return piece
        try:
            return self._inflater.decompress(piece, limit + 1)
        except zlib.error as error:
            raise ValueError(str(error)) from None
