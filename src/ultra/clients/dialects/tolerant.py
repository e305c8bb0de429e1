"""Decoding JSON of which one field has an odd type: that field is left out, and the answer stays.

An index as text, ``"refusal": false`` or a list with one strange entry must not cost an answer. The strict
decoder of msgspec goes first. Only what it refuses is read again, field by field.
"""

from __future__ import annotations

from functools import cache
from types import UnionType
from typing import Any, Final, Generic, TypeVar, Union, cast, get_args, get_origin

import msgspec
from msgspec import Raw, Struct

__all__ = ["ABSENT", "TolerantDecoder", "value_of"]

T = TypeVar("T")

ABSENT: Final = Raw(b"null")
"""The default of a field of any JSON. Such a field is decoded by `value_of`, when it is needed."""

# Bytes of a field of any JSON that are decoded: many small values take thirty times as much memory.
_LONGEST_VALUE: Final = 64 * 1024

_MOST_ITEMS: Final = 100_000

_DEEPEST: Final = 12
"""Levels that are read field by field: each reads all that is in it once more. No answer has as many."""


def value_of(raw: Raw) -> Any:  # noqa: ANN401 - any JSON
    """Return what `raw` holds; of something very long, only its beginning, as text."""
    if raw is ABSENT:
        return None
    content = bytes(raw)
    if len(content) > _LONGEST_VALUE:
        return content[:_LONGEST_VALUE].decode("utf-8", "replace")
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return content.decode("utf-8", "replace")  # what is skipped is not checked


class _Unreadable(msgspec.DecodeError):
    """The field that is the answer itself is of a wrong type."""


class TolerantDecoder(Generic[T]):
    """Decodes JSON as a `kind`, a Struct whose fields all have defaults, or a list of such.

    A Struct may name one field `essential`: without that, there is no answer.

    Raises:
        msgspec.DecodeError: it is no JSON, or an essential field is of another type.
        msgspec.ValidationError: it is no object, or no list.
    """

    def __init__(self, kind: type[T]) -> None:
        self._kind = kind
        self._strict = msgspec.json.Decoder(kind).decode

    def __call__(self, content: bytes) -> T:
        """Return `content` decoded."""
        try:
            return self._strict(content)
        except msgspec.ValidationError:
            return cast("T", _read(self._kind, content))


def _read(kind: Any, content: bytes, depth: int = 0) -> Any:  # noqa: ANN401 - a type, and a value of it
    """Return `content` as a `kind`, without the parts that are of another type. Raises `ValidationError`."""
    try:
        return _decoder(kind).decode(content)
    except msgspec.ValidationError as error:
        refused = error
    if depth == _DEEPEST:
        raise refused
    first = content.lstrip()[:1]
    for option in get_args(kind) if get_origin(kind) in {Union, UnionType} else (kind,):
        if first == b"{" and isinstance(option, type) and issubclass(option, Struct):
            return _read_struct(option, content, depth)
        if first == b"[" and get_origin(option) is list:
            return _read_list(get_args(option)[0], content, depth)
    raise refused


def _read_struct(kind: type[Struct], content: bytes, depth: int) -> Struct:
    found = {}
    loose = _loose(kind)
    given = msgspec.json.decode(content, type=loose)
    for field in msgspec.structs.fields(kind):
        raw = getattr(given, field.name)
        if raw is ABSENT:
            continue
        try:
            found[field.name] = _read(field.type, bytes(raw), depth + 1)
        except msgspec.ValidationError as error:
            if field.name == getattr(kind, "essential", None):
                raise _Unreadable(f"{field.name}: {error}") from None
            continue  # the field keeps its default
    return kind(**found)


def _read_list(kind: Any, content: bytes, depth: int) -> list[Any]:  # noqa: ANN401 - a type
    if content.count(b",") > _MOST_ITEMS:
        raise msgspec.ValidationError(f"a list of more than {_MOST_ITEMS} entries")
    items = []
    for raw in msgspec.json.decode(content, type=list[Raw]):
        try:
            items.append(_read(kind, bytes(raw), depth + 1))
        except msgspec.ValidationError:
            continue
    return items


@cache
def _loose(kind: type[Struct]) -> type[Struct]:
    """Return a Struct with the fields of `kind`, each of any type."""
    fields = msgspec.structs.fields(kind)
    names = {field.name: field.encode_name for field in fields}
    return msgspec.defstruct(kind.__name__, [(field.name, Raw, ABSENT) for field in fields], rename=names.get)


@cache
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:  # noqa: ANN401 - a type
    return msgspec.json.Decoder(kind, strict=False)
