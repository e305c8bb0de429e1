"""Makes text that others wrote fit to be shown: a terminal obeys what is in it."""

from __future__ import annotations

from typing import Final

__all__ = ["block", "one_line", "printable"]

_UNKNOWN: Final = "\N{REPLACEMENT CHARACTER}"

_SHOWN: Final[dict[int, str]] = {
    **{code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\t\n"},  # as pictures
    0x7F: "\N{SYMBOL FOR DELETE}",
    **dict.fromkeys(range(0x80, 0xA0), _UNKNOWN),  # the 8-bit forms of ESC [ and its like
    **dict.fromkeys(range(0x202A, 0x202F), _UNKNOWN),  # these reorder what stands beside them,
    **dict.fromkeys(range(0x2066, 0x206A), _UNKNOWN),  # which in columns is another model's text
    **dict.fromkeys((0x2028, 0x2029), "\n"),
    **dict.fromkeys(range(0xD800, 0xE000), _UNKNOWN),  # halves of pairs, which no encoding can write
}


def printable(text: str) -> str:
    """`text` with every control character but tab and newline replaced by a visible sign."""
    return text.replace("\r\n", "\n").translate(_SHOWN)


def block(text: str) -> str:
    """`text` as `printable` gives it, without empty lines and spaces around it."""
    return printable(text).lstrip("\n").rstrip()


def one_line(text: str) -> str:
    """`text` as `printable` gives it, on one line."""
    return " ".join(printable(text).split())
