"""The form in which stores keep answers: msgpack, so that any version of Ultra may read it."""

from __future__ import annotations

from typing import Final

import msgspec

from ultra.messages.results import Completion

__all__ = ["decode", "encode"]

_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Completion)


def encode(completion: Completion) -> bytes:
    """Encode an answer; fields that have their default are written too."""
    return _encoder.encode(completion)


def decode(answer: bytes) -> Completion:
    """Decode an answer; fields that this version does not know are left out.

    Raises:
        msgspec.MsgspecError: these bytes are no answer.
    """
    return _decoder.decode(answer)
