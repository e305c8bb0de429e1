"""Other models' texts made safe and neutral to read: nonce, labels, order.

A model that reads candidates reads text that it must not obey: another model wrote it, perhaps led
astray by what it had read itself. So each text stands between fences that carry a nonce, and the
nonce comes from a keyed digest that no writer of a text can compute (spotlighting by delimiters,
Hines et al., 2024). Judges favour positions and names (Zheng et al., "Judging LLM-as-a-Judge", 2023).
So texts have neutral labels, and each judge sees them in an order of its own.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from operator import itemgetter
from typing import TYPE_CHECKING, Final, Literal

from msgspec import Struct

from ultra.errors import BadCall

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Candidate", "LabelledText", "Part", "Seal", "disarm"]

Part = Literal["candidate", "analysis"]

_NONCE_LENGTH: Final = 12  # of 32 letters and digits: 60 bits
_NONCE_LETTERS: Final = b"abcdefghijklmnopqrstuvwxyz234567" * 8  # for each byte of a digest, one of them
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
    """A candidate or an analysis under its label, its content disarmed.

    `identity` is a keyed digest of its part, writer and text.
    """

    part: Part
    label: str
    model_name: str
    content: str
    weight: float
    identity: bytes

    def fenced(self, nonce: str) -> str:
        """The text as it stands in a prompt.

        On one line with its fences: small models copy fences that have lines of their own.
        """
        return f"{self.part.capitalize()} {self.label}: <{nonce}>{self.content}</{nonce}>"


class Seal:
    """Draws labels, orders and nonces from a secret, the same ones from the same input.

    Args:
        secret: at least 16 bytes that no model can know.

    Raises:
        BadCall: the secret is too short.
    """

    def __init__(self, secret: bytes) -> None:
        if len(secret) < _MIN_SECRET:
            raise BadCall(f"the secret has {len(secret)} bytes, but needs at least {_MIN_SECRET}")
        self._key = blake2b(secret).digest()

    def label(self, part: Part, texts: Iterable[Candidate]) -> tuple[LabelledText, ...]:
        """`texts` under the labels that every reader of them sees, in the labels' order.

        Candidates are called A, B, C, ..., analyses 1, 2, 3, ...
        """
        ranked = sorted(
            ((_digest(self._key, part, text.model_name, text.content), text) for text in texts),
            key=itemgetter(0),
        )
        return tuple(
            LabelledText(
                part,
                _letters(number) if part == "candidate" else str(number),
                text.model_name,
                disarm(text.content),
                text.weight,
                identity,
            )
            for number, (identity, text) in enumerate(ranked, start=1)
        )

    def reader(self, *reader: str) -> Reader:
        """One reading; `reader` tells it from others: the stage, the asked model, the question."""
        return Reader(_digest(self._key, "reader", *reader))


class Reader:
    """Draws what differs from reader to reader: the order of texts, and the nonce of their fences."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def arrange(self, texts: Iterable[LabelledText]) -> tuple[LabelledText, ...]:
        """`texts` in this reader's order."""
        key = self._key
        return tuple(sorted(texts, key=lambda text: blake2b(text.identity, key=key).digest()))

    def nonce(self, texts: Iterable[LabelledText], present: str) -> str:
        """A word for the fences of `texts`, which does not stand in `present`, a text in lower case."""
        identities = b"".join([text.identity for text in texts])
        attempt = 0
        # Chance does not bring a nonce into a text, but whoever has learned the secret could.
        while (nonce := self._draw(attempt, identities)) in present:
            attempt += 1
        return nonce

    def _draw(self, attempt: int, identities: bytes) -> str:
        digest = blake2b(b"nonce %d " % attempt + identities, key=self._key, digest_size=_NONCE_LENGTH)
        return digest.digest().translate(_NONCE_LETTERS).decode("ascii")


def _digest(key: bytes, *words: str) -> bytes:
    """A keyed digest of `words` and their lengths, so that no two sequences look alike."""
    lengths = " ".join([str(len(word)) for word in words])
    text = f"{lengths}\n{''.join(words)}"
    return blake2b(text.encode("utf-8", "surrogatepass"), key=key, digest_size=32).digest()


def disarm(content: str) -> str:
    """`content` with a space inside every control token of a chat template.

    Servers for local models read such tokens in any text: with one, a candidate could end the user's
    turn and begin one of the system.
    """
    if "<" not in content and "[" not in content:
        return content
    return _CONTROL_TOKENS.sub(lambda match: f"{match[0]} ", content)


def _letters(number: int) -> str:
    """A, B, ..., Z, AA, AB, ... for 1, 2, ..."""
    letters = ""
    while number:
        number, rest = divmod(number - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters
