r"""Making a text of a model fit to be encoded: halves of surrogate pairs and NUL are no text.

`json.loads` lets a lone ``\ud83d`` through, and a server that cuts a character in the middle sends its two
halves in two pieces. No such text can be sent on, stored or shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["RepairedText", "repaired"]

_REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"


def repaired(text: str) -> str:
    """Return `text` with halves that follow each other joined, and U+FFFD for each other half and for NUL."""
    if "\0" in text:
        text = text.replace("\0", _REPLACEMENT)
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


class RepairedText:
    r"""Passes pieces of a text on, repaired; all pieces together are the repaired whole text.

    ::

        text = RepairedText(print)
        text.feed("four \ud83d")  # prints "four "
        text.feed("\ude00")  # prints "😀"
        text.end()

    Args:
        to: called with each piece, an empty one too: it is a sign of life.
    """

    def __init__(self, to: Callable[[str], None]) -> None:
        self._to = to
        self._half = ""

    def feed(self, piece: str) -> None:
        """Pass `piece` on, without a first half at its end: that waits for the second one."""
        if self._half and piece:
            piece, self._half = self._half + piece, ""
        if "\ud800" <= piece[-1:] <= "\udbff":
            piece, self._half = piece[:-1], piece[-1]
        self._to(repaired(piece))

    def end(self) -> None:
        """Pass on what still waits."""
        if self._half:
            self._to(_REPLACEMENT)
            self._half = ""
