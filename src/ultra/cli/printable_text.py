"""Text of models, providers and files, made safe to print: terminals obey control characters."""

from __future__ import annotations

from typing import Final

from ultra._support.control_characters import CONTROLS, DIRECTIONS, LINE_ENDS, SURROGATES

__all__ = ["block", "one_line", "printable"]

_UNKNOWN: Final = "\N{REPLACEMENT CHARACTER}"

_SHOWN: Final[dict[int, str]] = {
    **dict.fromkeys((*CONTROLS, *DIRECTIONS, *SURROGATES), _UNKNOWN),
    **{code: chr(0x2400 + code) for code in range(0x20)},  # these have pictures,
    0x7F: "\N{SYMBOL FOR DELETE}",  # and so has this
    0x09: "\t",
    0x0A: "\n",
    **dict.fromkeys(LINE_ENDS, "\n"),
    # Marks of direction that stand alone, and tags that nobody sees, could hide a name in another name.
    **dict.fromkeys((0x200E, 0x200F, 0x061C, 0xFEFF, *range(0xE0000, 0xE0080)), ""),
}


def printable(text: str) -> str:
    """Return `text` with every control character but tab and newline replaced by a visible sign."""
    return text.replace("\r\n", "\n").translate(_SHOWN)


def block(text: str) -> str:
    """Return the printable text, without empty lines before it and white space after it."""
    return printable(text).lstrip("\n").rstrip()


def one_line(text: str) -> str:
    """Return the printable text on one line."""
    return " ".join(printable(text).split())
