"""Other models' texts made safe and neutral to read: nonce, labels, order.

A model that reads candidates reads text that it must not obey: another model wrote it, perhaps led
astray by what it had read itself. So each text stands between fences that carry a nonce, and the
nonce comes from a keyed digest that no writer of a text can compute (spotlighting by delimiters,
Hines et al., 2024). Judges favour positions and names (Zheng et al., "Judging LLM-as-a-Judge", 2023).
So texts have neutral labels, and each judge sees them in an order of its own.
"""

from __future__ import annotations

import re
from base64 import b32encode
from hashlib import blake2b
from itertools import count
from operator import itemgetter
from struct import pack
from typing import TYPE_CHECKING, Final, Literal

from msgspec import Struct

from ultra.errors import BadCall

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Candidate", "LabelledText", "Part", "Seal", "disarm"]

Part = Literal["candidate", "analysis"]

_NONCE_LENGTH: Final = 12  # of 32 letters and digits: 60 bits
_NONCE_BYTES: Final = 10  # what they are taken from; base32 writes five bytes as eight letters
_MIN_SECRET: Final = 16  # bytes

# What marks turns and their ends in the chat templates of ChatML, DeepSeek, Llama, Gemma and Mistral.
_CONTROL_TOKENS: Final = re.compile(
    r"<(?=[|\uff5c][^<>|\uff5c\s]{1,64}[|\uff5c]>|/?s>|bos>|eos>|(?:start|end)_of_turn>)|\[(?=/?INST\])"
)


class Candidate(Struct, frozen=True):
    """One model's text that another model is to read."""

    model_name: str
    content: str
    weight: float = 1.0


class LabelledText(Struct, frozen=True):
    """A candidate or an analysis under its label, its content disarmed."""

    part: Part
    label: str
    model_name: str
    content: str
    weight: float

    def fenced(self, nonce: str) -> str:
        """The text as it stands in a prompt.

        On one line with its fences: small models copy fences that have lines of their own.
        """
        return f"{self.part.capitalize()} {self.label}: <{nonce}>{self.content}</{nonce}>"


class Seal:
    """Draws nonces, labels and orders from a secret, the same ones from the same input.

    Args:
        secret: at least 16 bytes that no model can know.
        reader: what tells one reading from another: the stage, the asked model, the question.

    Raises:
        BadCall: the secret is too short.
    """

    def __init__(self, secret: bytes, *reader: str) -> None:
        if len(secret) < _MIN_SECRET:
            raise BadCall(f"the secret has {len(secret)} bytes, but needs at least {_MIN_SECRET}")
        self._key = blake2b(secret).digest()
        self._reader_key = _digest(self._key, "reader", *reader)

    def arrange(self, part: Part, texts: Iterable[Candidate]) -> tuple[LabelledText, ...]:
        """`texts` under their labels, which every reader of them sees, in this reader's order.

        Candidates are called A, B, C, ..., analyses 1, 2, 3, ...
        """
        ranked = sorted(
            ((_digest(self._key, part, text.model_name, text.content), text) for text in texts),
            key=itemgetter(0),
        )
        labelled = [
            (blake2b(identity, key=self._reader_key).digest(), _label(part, number, text))
            for number, (identity, text) in enumerate(ranked, start=1)
        ]
        return tuple(text for _, text in sorted(labelled, key=itemgetter(0)))

    def nonce(self, texts: Iterable[LabelledText], *others: str) -> str:
        """A word for the fences of `texts` that stands in none of them, nor in `others`."""
        parts = [word for text in texts for word in (text.part, text.model_name, text.content)]
        # Chance does not bring the nonce into a text, but whoever has learned the secret could.
        present = "\n".join((*parts, *others)).lower()
        nonces = (self._draw(attempt, parts) for attempt in count())
        return next(nonce for nonce in nonces if nonce not in present)

    def _draw(self, attempt: int, parts: Iterable[str]) -> str:
        digest = _digest(self._reader_key, "nonce", str(attempt), *parts)
        return b32encode(digest[:_NONCE_BYTES]).decode().lower()[:_NONCE_LENGTH]


def _label(part: Part, number: int, text: Candidate) -> LabelledText:
    label = _letters(number) if part == "candidate" else str(number)
    return LabelledText(part, label, text.model_name, disarm(text.content), text.weight)


def _digest(key: bytes, *words: str) -> bytes:
    """A keyed digest of `words` and their lengths, so that no two sequences look alike."""
    encoded = [word.encode("utf-8", "surrogatepass") for word in words]
    lengths = pack(f">{len(encoded)}Q", *map(len, encoded))
    return blake2b(b"".join((lengths, *encoded)), key=key, digest_size=32).digest()


def disarm(content: str) -> str:
    """`content` with a space inside every control token of a chat template.

    Servers for local models read such tokens in any text: with one, a candidate could end the user's
    turn and begin one of the system.
    """
    return _CONTROL_TOKENS.sub(lambda match: f"{match[0]} ", content)


def _letters(number: int) -> str:
    """A, B, ..., Z, AA, AB, ... for 1, 2, ..."""
    letters = ""
    while number:
        number, rest = divmod(number - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters
