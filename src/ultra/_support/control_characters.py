"""The characters that steer a terminal, end a line, or cannot be written. Texts of others may hold them."""

from __future__ import annotations

from typing import Final

__all__ = ["CONTROLS", "DIRECTIONS", "LINE_ENDS", "SURROGATES"]

CONTROLS: Final = (*range(0x20), *range(0x7F, 0xA0))
"""C0 with tab and newline, DEL, and C1, which stands for ESC [ and others."""

DIRECTIONS: Final = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
"""Marks that change the direction of text, also of the text beside it."""

LINE_ENDS: Final = (0x2028, 0x2029)
"""The separators of lines and paragraphs, which some readers take for a newline."""

SURROGATES: Final = range(0xD800, 0xE000)
"""Halves of characters: no encoding can write them."""
