"""How journals encode what they keep: as msgpack, so that other versions of Ultra can read it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from ultra.errors import BadCall
from ultra.messages.events import Event
from ultra.messages.results import ModelResponse
from ultra.messages.runs import RunSpec
from ultra.stores.journal_contract import PAGE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ultra.stores.journal_contract import RunRecord

__all__ = [
    "Damaged",
    "decode_answer",
    "decode_event",
    "decode_spec",
    "decode_tags",
    "encode_answer",
    "encode_event",
    "encode_spec",
    "encode_tags",
    "is_full_page",
]

T = TypeVar("T")

_encode: Final = msgspec.msgpack.Encoder().encode
_events: Final[msgspec.msgpack.Decoder[Event]] = msgspec.msgpack.Decoder(Event)
_events_in_json: Final[msgspec.json.Decoder[Event]] = msgspec.json.Decoder(Event)
_answers: Final = msgspec.msgpack.Decoder(ModelResponse)
_specs: Final = msgspec.msgpack.Decoder(RunSpec)
_tags: Final = msgspec.msgpack.Decoder(dict[str, Any])

_IN_JSON: Final = b"\xc1"
"""A byte that begins no msgpack: what follows is JSON, which has whole numbers of any size."""


class Damaged(ValueError):
    """What was kept cannot be decoded, or is not what was written.

    Attributes:
        run: of a damaged record, what can still be read of it.
    """

    def __init__(self, text: str, run: RunRecord | None = None) -> None:
        super().__init__(text)
        self.run = run


def encode_event(event: Event) -> bytes:
    """Return an event as bytes. Raises `BadCall` where something in it is no value."""
    try:
        return _encode(event)
    except OverflowError:  # an output may have numbers of more than 64 bits
        pass
    except (TypeError, ValueError, RecursionError) as error:
        raise _unkept("an event", error) from error
    try:
        return _IN_JSON + msgspec.json.encode(event)
    except (TypeError, ValueError, RecursionError) as error:
        raise _unkept("an event", error) from error


def decode_event(encoded: bytes) -> Event:
    """Return the event that was encoded. Raises `Damaged`, as all that decode do."""
    return _decoded(_event, encoded)


def _event(encoded: bytes) -> Event:
    in_json = encoded.startswith(_IN_JSON)
    return _events_in_json.decode(memoryview(encoded)[1:]) if in_json else _events.decode(encoded)


def is_full_page(events: Sequence[Event], limit: int = 256) -> bool:
    """Return whether a journal may have ended its reading here, and has more; see `RunJournal.read`."""
    return len(events) >= limit or sum(len(encode_event(event)) for event in events) >= PAGE_BYTES


def encode_answer(answer: ModelResponse) -> bytes:
    """Return a model's answer as bytes. Raises `BadCall` where something in it is no value."""
    try:
        return _encode(answer)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise _unkept("an answer", error) from error


def decode_answer(encoded: bytes) -> ModelResponse:
    """Return the answer that was encoded."""
    return _decoded(_answers.decode, encoded)


def encode_spec(spec: RunSpec) -> bytes:
    """Return what a run is to do as bytes.

    Raises:
        BadCall: something in it is no value, such as an option that is a client or a function.
    """
    return _plain(spec, "the request and the settings of a submitted run")


def decode_spec(encoded: bytes) -> RunSpec:
    """Return what was encoded."""
    return _decoded(_specs.decode, encoded)


def encode_tags(tags: Mapping[str, Any]) -> bytes:
    """Return the tags of a run as bytes; raise `BadCall` for one that is no value."""
    return _plain(tags, "the tags of a run")


def decode_tags(encoded: bytes) -> dict[str, Any]:
    """Return what was encoded."""
    return _decoded(_tags.decode, encoded)


def _unkept(what: str, error: Exception) -> BadCall:
    """Say that this is refused, which ends the run: a journal that did not work would be tried for ever."""
    return BadCall(f"{what} of the run cannot be kept, since something in it is no value: {error}")


def _decoded(decode: Callable[[bytes], T], encoded: bytes) -> T:
    try:
        return decode(encoded)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:  # it may not even be bytes
        raise Damaged(str(error)) from error


def _plain(value: object, what: str) -> bytes:
    try:
        return _encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise BadCall(
            f"{what} must be values (text, numbers, lists, mappings), so that another process can take "
            f"the run up: {error}"
        ) from error
