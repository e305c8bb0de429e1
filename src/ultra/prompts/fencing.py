"""Other models' texts made safe and neutral to read: nonce, labels, order.

A model that reads candidates reads text that it must not obey: another model wrote it, perhaps led
astray by what it had read itself. So each text stands between fences that carry a nonce, and the
nonce comes from a keyed digest that no writer of a text can compute (spotlighting by delimiters,
Hines et al., 2024). Judges favour positions and names (Zheng et al., "Judging LLM-as-a-Judge", 2023).
So texts have neutral labels, and each judge sees them in an order of its own.
"""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import blake2b
from operator import attrgetter
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeVar

from msgspec import Struct

from ultra.errors import BadCall

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Candidate", "Labelled", "LabelledText", "Part", "Reading", "Seal", "disarm"]

T = TypeVar("T")

Part = Literal["candidate", "analysis"]

_NONCE_LENGTH: Final = 12  # of 32 letters and digits: 60 bits
_NONCE_LETTERS: Final = b"abcdefghijklmnopqrstuvwxyz234567" * 8  # for each byte of a digest, one of them
_MIN_SECRET: Final = 16  # bytes
_BY_WRITER_AND_TEXT: Final = attrgetter("model_name", "content")

# What marks turns and their ends in the chat templates of ChatML, DeepSeek, Llama, Gemma and Mistral.
_CONTROL_TOKENS: Final = re.compile(
    r"<(?=[|\uff5c][^<>|\uff5c\s]{1,64}[|\uff5c]>|/?s>|bos>|eos>|(?:start|end)_of_turn>)|\[(?=/?INST\])"
)


class Candidate(Struct, frozen=True, gc=False):
    """One model's text that another model is to read."""

    model_name: str
    content: str
    weight: float = 1.0


class LabelledText(Struct, frozen=True, gc=False):
    """A candidate or an analysis under its label, its content disarmed."""

    part: Part
    label: str
    heading: str
    model_name: str
    content: str
    weight: float

    def fenced(self, nonce: str) -> str:
        """The text as it stands in a prompt.

        On one line with its fences: small models copy fences that have lines of their own.
        """
        return f"{self.heading}: <{nonce}>{self.content}</{nonce}>"


class Labelled(NamedTuple):
    """Texts in the order of their labels, and a keyed digest of them all, the `key` of what follows."""

    key: bytes
    texts: tuple[LabelledText, ...]


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

    def label(self, candidates: Iterable[Candidate]) -> Labelled:
        """The candidates under the labels that they have in whatever stage reads just these."""
        return _labelled(self._key, "candidate", candidates)

    def reading(
        self, stage: str, question: str, candidates: Labelled, analyses: Sequence[Candidate] = ()
    ) -> Reading:
        """The texts as they are to be read in `stage`, for the sake of `question`."""
        key, opinions = _labelled(candidates.key, "analysis", analyses) if analyses else (candidates.key, ())
        return Reading(_digest(key, f"reading {len(stage)} {stage}{question}"), candidates.texts, opinions)


class Reading:
    """Texts that several readers are to read: `Seal.reading` makes it.

    Each digest is the key of the next one, so everything depends on all that comes before it: the
    labels of the candidates on the candidates alone, those of the analyses on both, and what differs
    from reader to reader on stage and question, too.

    Attributes:
        candidates: under the labels that every reader of them sees, in the labels' order: A, B, C, ...
        analyses: likewise: 1, 2, 3, ...
    """

    def __init__(
        self, key: bytes, candidates: tuple[LabelledText, ...], analyses: tuple[LabelledText, ...]
    ) -> None:
        self.candidates = candidates
        self.analyses = analyses
        self._key = key

    def for_reader(self, reader: str, present: str) -> tuple[tuple[LabelledText, ...], str]:
        """The texts in the order of this reader, analyses last, and a word for their fences.

        The word, the nonce, does not stand in `present`, a text in lower case.
        """
        drawn = _digest(self._key, reader)
        nonce, number = _nonce(drawn), _number(drawn, len(self.candidates) + len(self.analyses))
        # Chance does not bring a nonce into a text, but whoever has learned the secret could.
        while nonce in present:
            drawn = blake2b(drawn).digest()
            nonce = _nonce(drawn)
        candidates, number = _shuffled(self.candidates, number)
        analyses, number = _shuffled(self.analyses, number)
        return (*candidates, *analyses), nonce


def _labelled(key: bytes, part: Part, texts: Iterable[Candidate]) -> Labelled:
    """`texts` under their labels, in whatever order they come."""
    known = sorted(texts, key=_BY_WRITER_AND_TEXT)
    # With their lengths, so that no two sets look alike.
    told = [f" {len(text.model_name)} {len(text.content)} {text.model_name}{text.content}" for text in known]
    digest = _digest(key, part + "".join(told))
    shuffled, _ = _shuffled(known, _number(digest, len(known)))
    labelled = [
        LabelledText(part, *_label(part, number), text.model_name, disarm(text.content), text.weight)
        for number, text in enumerate(shuffled, start=1)
    ]
    return Labelled(digest, tuple(labelled))


def _digest(key: bytes, text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), key=key).digest()


def _nonce(drawn: bytes) -> str:
    return drawn[:_NONCE_LENGTH].translate(_NONCE_LETTERS).decode("ascii")


def _number(drawn: bytes, texts: int) -> int:
    """A number to shuffle so many texts by, from what the nonce leaves of `drawn`.

    It is far larger than the number of their orders, so that each of these comes about equally often.
    """
    while len(drawn) < _NONCE_LENGTH + 16 + 2 * texts:
        drawn += blake2b(drawn).digest()
    return int.from_bytes(drawn[_NONCE_LENGTH:], "big")


def _shuffled(texts: Sequence[T], number: int) -> tuple[list[T], int]:
    """`texts` in the order that `number` picks, and what is left of the number for others."""
    left, shuffled = list(texts), []
    while left:
        number, index = divmod(number, len(left))
        shuffled.append(left.pop(index))
    return shuffled, number


def disarm(content: str) -> str:
    """`content` with a space inside every control token of a chat template.

    Servers for local models read such tokens in any text: with one, a candidate could end the user's
    turn and begin one of the system.
    """
    if "<" not in content and "[" not in content:
        return content
    return _CONTROL_TOKENS.sub(lambda match: f"{match[0]} ", content)


@lru_cache(maxsize=256)
def _label(part: Part, number: int) -> tuple[str, str]:
    """The label of the text of this number, and its heading."""
    label = _letters(number) if part == "candidate" else str(number)
    return label, f"{part.capitalize()} {label}"


def _letters(number: int) -> str:
    """A, B, ..., Z, AA, AB, ... for 1, 2, ..."""
    letters = ""
    while number:
        number, rest = divmod(number - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters
