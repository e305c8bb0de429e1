"""Fences, labels and order of texts that other models wrote, so that a model can read them safely.

A model that reads an answer of another model must not obey what stands in it. So each text stands between
fences that carry a nonce, and the nonce comes from a keyed digest that no writer of a text can compute
(spotlighting by delimiters, Hines et al., 2024). Judges favour positions and names (Zheng et al., "Judging
LLM-as-a-Judge", 2023). So texts have neutral labels, and each judge sees them in another order.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b, shake_128
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeVar

from msgspec import Struct

from ultra._support.lazy import lazy_pattern
from ultra.errors import BadCall

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Candidate", "Fencing", "Labelled", "LabelledText", "Part", "Reading", "disarm"]

T = TypeVar("T")

Part = Literal["candidate", "analysis"]

_NONCE_LENGTH: Final = 12  # of 32 different letters and digits: 60 bits
_NONCE_LETTERS: Final = b"abcdefghijklmnopqrstuvwxyz234567" * 8  # the letter of each byte of a digest
_MIN_SECRET: Final = 16  # bytes
_BYTES_TO_SORT: Final = 8
_BY_WRITER_AND_TEXT: Final = attrgetter("model_name", "content")

# The tokens that begin and end turns in the chat templates of open models, each as a pattern of what follows
# its first sign.
_AFTER_ANGLE: Final = (
    r"[|\uff5c][^<>|\uff5c\s]{1,64}[|\uff5c]>",  # ChatML, Qwen, Llama 3 and 4, Phi, GLM, Kimi, DeepSeek
    r"[|\uff5c][a-zA-Z_]{1,32}>",  # Gemma 4: <|turn>
    r"[a-zA-Z_]{1,32}[|\uff5c]>",  # Gemma 4: <turn|>
    r"/?s>",  # Llama 2, Mistral
    r"(?:start|end)_of_turn>",  # Gemma 1 to 3
    r"(?:bos|eos|sop|eop|sep|cls|unk|pad|mask)>",
    r"(?:BOS|EOS|PAD|UNK|CLS|SEP|MASK)_TOKEN>",  # Cohere
    r"/?tool_(?:call|response)s?>",  # Qwen, GLM, Hermes: what a tool answered is in a turn of the user
    r"_(?:start|end|pad|system|user|bot)>",  # TeleChat
    r"</?SYS>>",  # Llama 2: <<SYS>>
    r"role>(?:HUMAN|SYSTEM|ASSISTANT|OBSERVATION)",  # Ling
    r"(?:extra_id|unused|reserved|SPECIAL)_?\d{1,4}>",  # Nemotron, MedGemma, Baichuan
    r"seed:[a-z_/]{1,32}>",  # Seed
)
_AFTER_BRACKET: Final = (
    r"\|[^\[\]|\n]{1,64}\|\]",  # EXAONE
    r"/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|CALL_ID)\]",  # Mistral
    r"/?(?:ARGS|THINK|MODEL_SETTINGS|IMG|IMG_BREAK|IMG_END|PREFIX|MIDDLE|SUFFIX)\]",  # the same
    r"[gs]?MASK\]",  # GLM
    r"(?:BOS|EOS|EOT|PAD|UNK|CLS|SEP)\]",  # Kimi
    r"(?:start|end)_header_id\]",  # Kimi
    r"e~\[",  # MiniMax
)
_AFTER_CLOSING_BRACKET: Final = (r"~!?b[\[\]]",)  # MiniMax
_CONTROL_TOKENS: Final = lazy_pattern(
    "|".join(
        f"{sign}(?={'|'.join(patterns)})"
        for sign, patterns in (
            ("<", _AFTER_ANGLE),
            (r"\[", _AFTER_BRACKET),
            (r"\]", _AFTER_CLOSING_BRACKET),
        )
    )
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
        """Return the text between its fences, as it stands in a prompt.

        The fences are on the lines of the text: small models copy fences that have lines of their own.
        """
        return f"{self.heading}: <{nonce}>{self.content}</{nonce}>"


class Labelled(NamedTuple):
    """Texts in the order of their labels, and the keyed digest of them all, which is the next `key`."""

    key: bytes
    texts: tuple[LabelledText, ...]


class Fencing:
    """Derives labels, orders and nonces from a secret; the same input gives the same output.

    ::

        fencing = Fencing(secret)
        reading = fencing.reading("meta", question, fencing.label(candidates))
        texts, nonce = reading.for_reader("llama", present="")

    Args:
        secret: at least 16 bytes that no model knows.

    Raises:
        BadCall: the secret is too short.
    """

    def __init__(self, secret: bytes) -> None:
        if len(secret) < _MIN_SECRET:
            raise BadCall(f"the secret has {len(secret)} bytes, but needs at least {_MIN_SECRET}")
        self._key = blake2b(secret).digest()

    def label(self, candidates: Iterable[Candidate]) -> Labelled:
        """Return the candidates under their labels, which are the same in all stages that read this set."""
        return _labelled(self._key, "candidate", candidates)

    def reading(
        self, stage: str, question: str, candidates: Labelled, analyses: Sequence[Candidate] = ()
    ) -> Reading:
        """Return the texts as they are read in `stage` to answer `question`."""
        key, opinions = _labelled(candidates.key, "analysis", analyses) if analyses else (candidates.key, ())
        return Reading(_digest(key, f"reading {len(stage)} {stage}{question}"), candidates.texts, opinions)


class Reading:
    """Texts for several readers, made by `Fencing.reading`.

    Each digest is the key of the next one. So the labels of candidates depend on the candidates alone,
    those of analyses on both, and what differs between readers on stage and question, too.

    Attributes:
        candidates: in the order of their labels, which all readers see: A, B, C, ...
        analyses: the same: 1, 2, 3, ...
    """

    def __init__(
        self, key: bytes, candidates: tuple[LabelledText, ...], analyses: tuple[LabelledText, ...]
    ) -> None:
        self.candidates = candidates
        self.analyses = analyses
        self._key = key

    def for_reader(self, reader: str, present: str) -> tuple[tuple[LabelledText, ...], str]:
        """Return the texts in the order of this reader, analyses last, and the nonce of their fences.

        The nonce does not occur in `present`, a text in lower case.
        """
        drawn = _digest(self._key, reader)
        order, nonce = drawn, _nonce(drawn)
        # A nonce is in a text only if its writer knows the secret.
        while nonce in present:
            drawn = blake2b(drawn).digest()
            nonce = _nonce(drawn)
        candidates = _shuffled(self.candidates, order, "candidate")
        return (*candidates, *_shuffled(self.analyses, order, "analysis")), nonce


def _labelled(key: bytes, part: Part, texts: Iterable[Candidate]) -> Labelled:
    """Return `texts` under their labels, which do not depend on the order in which they are given."""
    known = sorted(texts, key=_BY_WRITER_AND_TEXT)
    # With their lengths, so that two different sets never give the same text.
    parts = [f" {len(text.model_name)} {len(text.content)} {text.model_name}{text.content}" for text in known]
    digest = _digest(key, part + "".join(parts))
    shuffled = _shuffled(known, digest, part)
    labelled = [
        LabelledText(part, *_label(part, number), text.model_name, disarm(text.content), text.weight)
        for number, text in enumerate(shuffled, start=1)
    ]
    return Labelled(digest, tuple(labelled))


def _digest(key: bytes, text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), key=key).digest()


def _nonce(drawn: bytes) -> str:
    return drawn[:_NONCE_LENGTH].translate(_NONCE_LETTERS).decode("ascii")


def _shuffled(texts: Sequence[T], drawn: bytes, part: Part) -> list[T]:
    """Return `texts` in the order that the drawn bytes pick: each gets 64 bits, by which they are sorted."""
    if len(texts) < 2:  # noqa: PLR2004 - there is nothing to sort
        return list(texts)
    # Their seed is a keyed digest: who does not know the key cannot tell the order.
    bits = shake_128(drawn[_NONCE_LENGTH:] + part.encode()).digest(_BYTES_TO_SORT * len(texts))
    places = [bits[at : at + _BYTES_TO_SORT] for at in range(0, len(bits), _BYTES_TO_SORT)]
    return [text for _, text in sorted(zip(places, texts, strict=True), key=itemgetter(0))]


def disarm(content: str) -> str:
    """Return `content` with a space inside every control token of a chat template.

    Servers of local models obey such tokens in any text. A candidate could end the user's turn with one,
    and begin a turn of the system.
    """
    if not ("<" in content or "[" in content or "]" in content):
        return content
    return _CONTROL_TOKENS().sub(lambda match: f"{match[0]} ", content)


@lru_cache(maxsize=256)
def _label(part: Part, number: int) -> tuple[str, str]:
    """Return the label of the text of this number, and its heading."""
    label = _letters(number) if part == "candidate" else str(number)
    return label, f"{part.capitalize()} {label}"


def _letters(number: int) -> str:
    """Return A, B, ..., Z, AA, AB, ... for 1, 2, ..."""
    letters = ""
    while number:
        number, rest = divmod(number - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters
