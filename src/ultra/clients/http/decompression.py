"""Decompressing a body, never further than the caller allows."""

from __future__ import annotations

import zlib
from typing import Final

__all__ = ["ACCEPTED", "Decompressor"]

ACCEPTED: Final = "gzip"
"""The coding to ask for: every server knows it, and it streams."""

_ANY_HEADER: Final = 32 + zlib.MAX_WBITS  # gzip's or zlib's own
_NO_HEADER: Final = -zlib.MAX_WBITS
_GZIP: Final = b"\x1f\x8b"
_LONGEST_PIECE: Final = 64 * 1024  # bytes; a longer one would hold the event loop up, and memory


class Decompressor:
    """Decompresses the pieces of one body: each `feed` is followed by `read` until that returns nothing.

    A gzip body may have several members. What follows the last one and is no member is dropped, and the body
    counts as ended. ``deflate`` may come with zlib's header or, against the standard, without.

    Raises:
        ValueError: the coding was not asked for.
    """

    def __init__(self, coding: str) -> None:
        name = coding.strip().lower()
        if name not in {"", "identity", "gzip", "x-gzip", "deflate"}:
            raise ValueError(f"content-encoding {coding[:100]!r} was not asked for")
        self._compressed = name not in {"", "identity"}
        self._deflate = name == "deflate"
        self._inflater: zlib._Decompress | None = None
        self._members = 0
        self._waiting = b""
        self.ended = False
        """Nothing more of the body is to come, whatever the server sends."""

    def feed(self, piece: bytes) -> None:
        """Take the next piece of the body."""
        if not self.ended:
            self._waiting = self._waiting + piece if self._waiting else piece

    def read(self) -> bytes:
        """Return the next bytes, at most 64 KiB of what was compressed; b"" if `feed` is to bring more first.

        Raises `ValueError` if the body was compressed in no known way.
        """
        if not self._compressed:
            taken, self._waiting = self._waiting, b""
            return taken
        while self._waiting and not self.ended:
            inflater = self._inflater or self._begin()
            if inflater is None:
                return b""
            try:
                found = inflater.decompress(self._waiting, _LONGEST_PIECE)
            except zlib.error as error:
                if not self._members:
                    raise ValueError(str(error)) from None
                self._end()
                return b""
            self._waiting = inflater.unused_data or inflater.unconsumed_tail
            self._inflater = inflater
            if inflater.eof:
                self._inflater = None
                self._members += 1
            if found:
                return found
        return b""

    def _begin(self) -> zlib._Decompress | None:
        """Return what inflates the next member; None if there is none, or too little of it to know."""
        head = self._waiting[:2]
        if self._members and not _GZIP.startswith(head):
            self._end()
            return None
        if len(head) < len(_GZIP):
            return None
        # zlib's own header names the method 8 and is a multiple of 31 (RFC 1950, section 2.2).
        has_header = head == _GZIP or (head[0] & 0x0F == 8 and int.from_bytes(head) % 31 == 0)  # noqa: PLR2004
        return zlib.decompressobj(_ANY_HEADER if has_header or not self._deflate else _NO_HEADER)

    def _end(self) -> None:
        self._waiting = b""
        self.ended = True
