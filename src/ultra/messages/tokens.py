"""An estimate of how many tokens a text has, without the tokenizer of any model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from zlib import adler32

if TYPE_CHECKING:
    from ultra.messages.request import ModelRequest

__all__ = ["MAX_CHARACTERS_PER_TOKEN", "estimate_request", "estimate_tokens"]

MAX_CHARACTERS_PER_TOKEN: Final = 4
"""A text of more characters than this is never estimated at one token."""

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
    """Return what a byte of UTF-8 adds to the estimate, in 1/50 of a token."""
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
"""How many weights can be summed at once, since an Adler-32 checksum counts modulo 65,521."""


def _sum(weights: bytes) -> int:
    """Return the sum of at most `_SPAN` weights: the lower half of their Adler-32 checksum (RFC 1950)."""
    return adler32(weights, 0) & 0xFFFF


def estimate_tokens(text: str) -> int:
    """Return about how many tokens `text` has, rather too many than too few.

    The weights were fitted to the tokenizer of SmolLM2. Its vocabulary is small (49,152 tokens, mostly
    English), so it makes more tokens of a text than those of large models. For it, the estimate of English,
    code, Russian, Hindi, Chinese, Japanese and Korean is between 1 and 1.4 times the true number. Text of
    long compound words may be underestimated by a quarter, random strings (base64) by two fifths. For
    vocabularies of 200,000 tokens, the estimate of other languages than English is up to three times too
    high. Adding text never lowers the estimate, and the estimate of two texts joined is at most the sum of
    their estimates. It takes about 1.3 ns for a character of ASCII, and 4 ns for one of Cyrillic or Chinese.
    """
    weights = text.encode("utf-8", "surrogatepass").translate(_WEIGHTS)
    if len(weights) <= _SPAN:
        units = _sum(weights)
    else:
        units = sum(_sum(weights[start : start + _SPAN]) for start in range(0, len(weights), _SPAN))
    return -(-units // _UNITS_PER_TOKEN)


def estimate_request(request: ModelRequest) -> int:
    """Return about how many tokens the messages of `request` have."""
    return sum(estimate_tokens(message.content) for message in request.messages)
