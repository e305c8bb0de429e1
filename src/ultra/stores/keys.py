"""The key of an answer: the digest of the request that it answers."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Struct

from ultra.errors import BadCall
from ultra.messages.schema import JsonSchema
from ultra.messages.tools import Tool

if TYPE_CHECKING:
    from ultra.messages.request import ModelRequest
    from ultra.stores.contracts import CacheKey

__all__ = ["cache_key"]

# What is digested, and how, belongs to the key: count up when the form of a request changes. Answers that
# were kept under older keys are then not found, and are asked for again.
_PERSON: Final = b"ultra request v5"

_encode: Final = msgspec.msgpack.Encoder().encode

_WITH_SCHEMAS: Final = (Tool, JsonSchema)


def cache_key(request: ModelRequest, identity: str = "", scope: object = None) -> CacheKey:
    """Return the digest of a request to a model, 32 bytes: equal requests have equal keys, others never do.

    All of the request counts: its messages, options, and the number of the sample. The order of mappings
    and sets does not matter, except in schemas: a model writes the properties in their order. The key does
    not depend on the process, so it can be kept in a file.

    `identity` says whose answer it is, where that can change the answer: the client's own options and
    address. `scope` says for whom the answer is: plain values; equal requests in different scopes have
    different keys.

    Raises:
        BadCall: an option has a value that has no encoding, such as a function or an open file.
    """
    try:
        said = (_canonical(identity), _canonical(request))
        encoded = _encode(said if scope is None else (*said, _canonical(scope)))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        names = ", ".join(map(repr, request.options.extra))
        raise BadCall(
            f"the options ({names}) cannot be part of a cache key: {error}; "
            "use plain values (text, numbers, lists, mappings), or call with use_cache=False"
        ) from error
    return blake2b(encoded, digest_size=32, person=_PERSON).digest()


def _canonical(value: Any) -> Any:  # noqa: ANN401 - options are whatever a client takes
    """Return `value` with its containers as tagged lists, so that no two values are encoded alike.

    msgspec's own deterministic order takes only text as keys, and options such as ``logit_bias`` map
    numbers. Text is encoded here, because it may hold lone surrogates (JSON cut in two), which strict
    UTF-8 refuses.
    """
    if value is None or isinstance(value, int | float):
        return value  # most options are
    match value:
        case str():
            return value.encode("utf-8", "surrogatepass")
        case Struct():
            tag = type(value).__name__
            form = _in_order if isinstance(value, _WITH_SCHEMAS) else _canonical
            fields = [getattr(value, name) for name in value.__struct_fields__]
            inside: Any = [None if field is None else form(field) for field in fields]  # most are
        case bytes() | bytearray() | memoryview():
            tag, inside = "bytes", value
        case list() | tuple():
            tag, inside = "list", [_canonical(item) for item in value]
        case Mapping():
            tag = "map"
            inside = sorted(
                (_key(name), _encode(_in_order(item)) if name == "properties" else _key(item))
                for name, item in value.items()
            )
        case AbstractSet():
            tag, inside = "set", sorted(map(_key, value))
        case _:
            return value
    return [tag, inside]


def _in_order(value: Any) -> Any:  # noqa: ANN401 - as above
    """Return the same of a part of a schema, in the order in which it is sent."""
    match value:
        case Mapping():
            return ["ordered", [[_key(name), _in_order(item)] for name, item in value.items()]]
        case list() | tuple():
            return ["list", [_in_order(item) for item in value]]
        case _:
            return _canonical(value)


def _key(value: Any) -> bytes:  # noqa: ANN401 - as above
    return _encode(_canonical(value))
