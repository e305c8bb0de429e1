"""The key of an answer: the digest of the request that it answers."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from ultra.messages.request import ModelRequest
    from ultra.stores.contracts import CacheKey

__all__ = ["cache_key"]

_encoder: Final = msgspec.msgpack.Encoder(order="deterministic")


def cache_key(request: ModelRequest, identity: str = "") -> CacheKey:
    """The digest of one request to a model: equal requests have equal keys, different ones never do.

    The order of mappings and sets within the options does not matter. The key does not depend on the
    process, so it can be kept in a file.
    """
    messages = [[message.role, _text(message.content)] for message in request.messages]
    encoded = _encoder.encode([messages, _canonical(request.options.given()), request.sample, identity])
    return blake2b(encoded, digest_size=32, person=b"ultra cache key2").digest()


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
