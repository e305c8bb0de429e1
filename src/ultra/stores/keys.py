"""The key of an answer: the digest of the request that it answers."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ultra.errors import BadCall

if TYPE_CHECKING:
    from ultra.stores.contracts import CacheKey

__all__ = ["cache_key"]

_encoder: Final = msgspec.msgpack.Encoder(order="deterministic")


def cache_key(prompt: str, system: str | None = None, options: Mapping[str, Any] | None = None) -> CacheKey:
    """The digest of one request to a model: equal requests have equal keys, different ones never do.

    The order of options (and of mappings and sets within them) does not matter. Values that are
    encoded alike, such as a UUID and its text, count as equal. The key does not depend on the
    process, so it can be kept in a file.

    Raises:
        BadCall: an option has a value that has no encoding, such as a function or an open file.
    """
    try:
        encoded = _encoder.encode([_text(prompt), _text(system), _canonical(options or {})])
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        names = ", ".join(map(repr, options or {}))
        raise BadCall(
            f"the options ({names}) cannot be part of a cache key: {error}; "
            "use plain values (text, numbers, lists, mappings), or call with use_cache=False"
        ) from error
    return blake2b(encoded, digest_size=32, person=b"ultra cache key").digest()


def _text(text: str | None) -> bytes | None:
    # Text cut out of JSON may hold lone surrogates, which strict UTF-8 refuses.
    return None if text is None else text.encode("utf-8", "surrogatepass")


def _canonical(value: Any) -> Any:  # noqa: ANN401 - options are whatever a client takes
    """`value` with every container replaced by a tagged list, so that no two values read the same.

    msgspec's own deterministic order takes only text as keys, and options such as ``logit_bias``
    map numbers.
    """
    if isinstance(value, Mapping):
        return [
            "map",
            sorted((_encoder.encode(_canonical(key)), _encode(item)) for key, item in value.items()),
        ]
    if isinstance(value, AbstractSet):
        return ["set", sorted(map(_encode, value))]
    if isinstance(value, list | tuple):
        return ["list", [_canonical(item) for item in value]]
    return value


def _encode(value: Any) -> bytes:  # noqa: ANN401 - as above
    return _encoder.encode(_canonical(value))
