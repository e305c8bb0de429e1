"""How stores encode answers: as msgpack, so that other versions of Ultra can read them."""

from __future__ import annotations

from typing import Final

import msgspec

from ultra.messages.results import Completion

__all__ = ["decode_answer", "encode_answer"]

_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Completion)


def encode_answer(answer: Completion) -> bytes:
    """Return `answer` as bytes; fields that have their default are written, too."""
    return _encoder.encode(answer)


def decode_answer(encoded: bytes) -> Completion:
    """Return the answer that was encoded; fields that this version does not know are left out.

    Raises:
        msgspec.MsgspecError: these bytes are no answer.
    """
    return _decoder.decode(encoded)
