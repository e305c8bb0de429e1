"""How stores encode answers: as msgpack, so that other versions of Ultra can read them."""

from __future__ import annotations

from typing import Final

import msgspec

from ultra._support.memory import ensure_memory
from ultra.messages.results import Completion
from ultra.stores.checksums import sealed, unsealed
from ultra.stores.contracts import is_whole

__all__ = ["BadAnswer", "decode_answer", "encode_answer"]

_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Completion)


class BadAnswer(Exception):
    """This cannot be kept, or what was kept is no whole answer. The store itself still works."""


def encode_answer(answer: Completion) -> bytes:
    """Return `answer` as bytes; fields that have their default are written, too. Its checksum is in front.

    Raises:
        BadAnswer: a field has a value that has no encoding.
    """
    try:
        return sealed(_encoder.encode(answer))
    except Exception as error:
        raise BadAnswer(f"the answer cannot be encoded: {error}") from error


def decode_answer(encoded: object) -> Completion:
    """Return the answer that was encoded; fields that this version does not know are left out.

    Others may have written to the store, so this may be anything.

    Raises:
        BadAnswer: it is not the bytes of a whole answer.
    """
    if not isinstance(encoded, bytes | bytearray | memoryview):
        raise BadAnswer(f"what is kept is no answer, but of type {type(encoded).__name__}")
    try:
        # Beside msgspec's own errors, there are those of bad UTF-8, and of deep nesting.
        ensure_memory(len(encoded))
        intact = unsealed(encoded)
        answer = None if intact is None else _decoder.decode(intact)
    except Exception as error:
        raise BadAnswer(f"what is kept is no answer: {error}") from error
    if answer is None:
        raise BadAnswer("what is kept is not what was written: its checksum is another one")
    if not is_whole(answer):
        raise BadAnswer("what is kept is no whole answer")
    return answer
