"""How many tokens a text takes, guessed without any model's tokenizer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from zlib import adler32

if TYPE_CHECKING:
    from ultra.messages.request import ModelRequest

__all__ = ["MAX_CHARACTERS_PER_TOKEN", "estimate_request", "estimate_tokens"]

MAX_CHARACTERS_PER_TOKEN: Final = 4
"""No text of more characters than this is estimated at one token."""

_UNITS_PER_TOKEN: Final = 50


_LEADING_BYTES: Final = (
    (0xC0, 0),  # the rest of a character, which was counted at its first byte
    (0xE0, 55),  # two bytes: accented Latin, Greek, Cyrillic, Hebrew, Arabic
    (0xEA, 90),  # three bytes: Indic scripts, kana, Chinese characters
    (0xF0, 140),  # Hangul
    (0x100, 150),  # four bytes: emoji, rare Chinese characters
)
"""Pairs of a bound and the weight of the bytes of UTF-8 below it that are not ASCII."""


def _weight(byte: int) -> int:
    """What a byte of UTF-8 adds to the estimate [1/50 token]."""
    character = chr(byte)
    if not character.isascii():
        return next(weight for bound, weight in _LEADING_BYTES if byte < bound)
    if character.isdigit():
        return 50  # many tokenizers split numbers into digits
    if character.isupper():
        return 24
    return 13 if character.islower() or character.isspace() else 40


_WEIGHTS: Final = bytes(_weight(byte) for byte in range(256))

_SPAN: Final = 65_520 // max(_WEIGHTS)
"""How many weights can be added up at once, as an Adler-32 checksum counts modulo 65,521."""


def _sum(weights: bytes) -> int:
    """The sum of at most `_SPAN` weights: the lower half of their Adler-32 checksum (RFC 1950)."""
    return adler32(weights, 0) & 0xFFFF


def estimate_tokens(text: str) -> int:
    """About how many tokens `text` takes, rather too many than too few.

    The weights were fitted to SmolLM2's tokenizer, whose small vocabulary (49,152, mostly English)
    cuts text finer than those of large models. There, English, code, Russian, Hindi, Chinese,
    Japanese and Korean come out between the true number and 1.4 times of it; text of long compound
    words may be underestimated by a quarter and random strings (base64) by two fifths. For
    vocabularies of 200,000 the estimate is up to three times too high outside English. Adding text
    never lowers the estimate, and that of two texts together is at most the sum of their estimates.
    Takes about 1.3 ns a character of ASCII, and 4 ns one of Cyrillic or Chinese.
    """
    weights = text.encode("utf-8", "surrogatepass").translate(_WEIGHTS)
    if len(weights) <= _SPAN:
        units = _sum(weights)
    else:
        units = sum(_sum(weights[start : start + _SPAN]) for start in range(0, len(weights), _SPAN))
    return -(-units // _UNITS_PER_TOKEN)


def estimate_request(request: ModelRequest) -> int:
    """About how many tokens the messages of `request` take."""
    return sum(estimate_tokens(message.content) for message in request.messages)
