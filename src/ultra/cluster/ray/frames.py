"""What an actor and the process of its model say to each other: values, as bytes.

A call is begun, read until its end, or ended early::

    begin(Call)  ->  read(Read) -> News, again and again until one has an end
    cancel(id)   ->  when the work has ended

All that was written since the last `News` is in the next one, as one text, whatever the number of its pieces.
So is what was thought, in its blocks.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec
from msgspec import Struct

from ultra.messages.chat import ReasoningPart
from ultra.messages.request import ModelRequest
from ultra.messages.results import Completion, Usage

__all__ = [
    "Answered",
    "Call",
    "Cancelled",
    "End",
    "Failed",
    "News",
    "Read",
    "decode_call",
    "decode_news",
    "decode_read",
    "encode",
]


class Call(Struct, frozen=True, kw_only=True):
    """Begin a call.

    Attributes:
        id: its name in this process.
        request: what the model is asked.
        streams: whether the text is wanted while it is written.
        time_left: seconds after which the call is cancelled, unless it was read again; None: no bound.
    """

    id: int
    request: ModelRequest
    streams: bool
    time_left: float | None = None


class Read(Struct, frozen=True, kw_only=True):
    """Wait for news of a call, which has so many seconds left from now on; None: no bound."""

    id: int
    time_left: float | None = None


class Answered(Struct, frozen=True, tag="answered"):
    """The call has ended with an answer."""

    completion: Completion


class Failed(Struct, frozen=True, tag="failed"):
    """The call has ended with an error, which is pickled; see `errors_between`."""

    error: bytes


class Cancelled(Struct, frozen=True, tag="cancelled"):
    """The call was cancelled, or its time was over."""


End: TypeAlias = Answered | Failed | Cancelled


class News(Struct, frozen=True, kw_only=True):
    """What has happened since the last `News`.

    Attributes:
        reasoning: what was thought ahead of the text.
        text: what was written.
        alive: whether there was a sign of life without text.
        usage: the tokens counted so far, if that has changed.
        end: how the call has ended; None: it goes on.
    """

    reasoning: tuple[ReasoningPart, ...] = ()
    text: str = ""
    alive: bool = False
    usage: Usage | None = None
    end: End | None = None


encode: Final = msgspec.msgpack.Encoder().encode
decode_call: Final = msgspec.msgpack.Decoder(Call).decode
decode_read: Final = msgspec.msgpack.Decoder(Read).decode
decode_news: Final = msgspec.msgpack.Decoder(News).decode
