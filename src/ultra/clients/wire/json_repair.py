"""JSON with halves of surrogate pairs or bytes that are no UTF-8, made fit for a strict decoder."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["HalfCharacters", "has_nul"]

# Every escape is matched, so that the second of two backslashes begins none.
_ESCAPE: Final = re.compile(
    rb"""\\(?: u[dD][89abAB][0-9a-fA-F]{2} \\u[dD][c-fC-F][0-9a-fA-F]{2}  # a whole pair
           | u(?P<high> [dD][89abAB][0-9a-fA-F]{2} ) (?P<last> (?=") )?
           | (?P<first> (?<="\\) )? u(?P<low> [dD][c-fC-F][0-9a-fA-F]{2} )
           | u(?P<nul> 0000 )
           | . )""",
    re.VERBOSE | re.DOTALL,
)
_REPLACEMENT: Final = rb"\ufffd"


def has_nul(content: bytes) -> bool:
    """Return whether `content` may hold an escaped NUL."""
    return rb"\u0000" in content


class HalfCharacters:
    """Repairs the JSON of one response, which may be many documents.

    Where many are expected, a first half that ends a string waits for a second half that begins a string of a
    later document: servers that cut between two tokens send a character so. Every other half, and NUL,
    becomes U+FFFD.
    """

    def __init__(self) -> None:
        self._high = b""
        self.wait = False
        """Whether more documents may follow."""

    def repair(self, content: bytes) -> bytes:
        """Return `content` without halves."""
        before, self._high = self._high, b""

        def replaced(match: re.Match[bytes]) -> bytes:
            if match["high"]:
                if match["last"] is None or not self.wait:
                    return _REPLACEMENT
                self._high = match["high"]
                return b""
            if match["low"]:
                if match["first"] is None or not before:
                    return _REPLACEMENT
                return rb"\u%b\u%b" % (before, match["low"])
            return _REPLACEMENT if match["nul"] else match[0]

        return _ESCAPE.sub(replaced, content.decode("utf-8", "replace").encode())
