"""Text of models, providers and files, made safe to print: terminals obey control characters."""

from __future__ import annotations

from typing import Final

__all__ = ["block", "one_line", "printable"]

_UNKNOWN: Final = "\N{REPLACEMENT CHARACTER}"

_SHOWN: Final[dict[int, str]] = {
    **{code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\t\n"},  # as their pictures
    0x7F: "\N{SYMBOL FOR DELETE}",
    **dict.fromkeys(range(0x80, 0xA0), _UNKNOWN),  # 8-bit forms of ESC [ and others
    **dict.fromkeys(range(0x202A, 0x202F), _UNKNOWN),  # these change the direction of text,
    **dict.fromkeys(range(0x2066, 0x206A), _UNKNOWN),  # in columns also that of another model
    # Marks of direction, and tags that nobody sees, which a name could hide in another name.
    **dict.fromkeys((0x200E, 0x200F, 0x061C, 0xFEFF, *range(0xE0000, 0xE0080)), ""),
    **dict.fromkeys((0x2028, 0x2029), "\n"),
    **dict.fromkeys(range(0xD800, 0xE000), _UNKNOWN),  # surrogates, which no encoding can write
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
