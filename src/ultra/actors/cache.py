"""The cache of a model's answers: its contract, its keys, and the store that keeps them in memory.

Every model has a shard of its own, so one model's answers never push out, nor pass for, another's.
A shard keeps only whole successful answers; errors, and answers that stopped early, are asked again.
"""

from __future__ import annotations

import math
import sys
import threading
from collections import OrderedDict
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeAlias, runtime_checkable

import msgspec
import trio
from msgspec import Struct

from ultra.actors.timeline import Timeline
from ultra.chance import new_secret
from ultra.errors import BadCall

if TYPE_CHECKING:
    from collections.abc import Callable

    from ultra.messages import Completion

__all__ = [
    "CacheKey",
    "CacheShard",
    "CacheStatistics",
    "CacheStore",
    "MemoryCache",
    "MemoryShard",
    "cache_key",
    "check_bound",
    "is_whole",
]

CacheKey: TypeAlias = bytes
"""The digest that `cache_key` makes: 32 bytes that say nothing about the prompt."""

SECRET_BYTES: Final = 32

_encoder: Final = msgspec.msgpack.Encoder(order="deterministic")


# --- the contract ------------------------------------------------------------------------------


class CacheStatistics(Struct, frozen=True, kw_only=True):
    """What one shard did since it was opened, and what it holds now.

    `hits` + `misses` is the number of lookups. `stored` counts the answers that were kept, `refused`
    those that were not: not whole, or bigger than the whole shard may be. `evictions` made room,
    `expirations` were too old. `failures` counts the reads and writes that the store could not do;
    such a read is also a miss. `bytes` is what the `entries` take up, as far as the store can tell.
    """

    hits: int = 0
    misses: int = 0
    stored: int = 0
    refused: int = 0
    evictions: int = 0
    expirations: int = 0
    failures: int = 0
    entries: int = 0
    bytes: int = 0


class CacheShard(Protocol):
    """The answers of one model. Whatever goes wrong inside, it is a miss and never an error."""

    async def get(self, key: CacheKey) -> Completion | None:
        """The answer kept under `key`, or None. Cancelling a lookup leaves the shard as it was."""
        ...

    async def put(self, key: CacheKey, completion: Completion) -> None:
        """Keep a whole answer under `key`, in place of an older one; drop any other answer.

        After a cancellation the answer was kept or it was not, but never in part.
        """
        ...

    def statistics(self) -> CacheStatistics:
        """The counters of this shard, as they are now."""
        ...


@runtime_checkable
class CacheStore(Protocol):
    """Where the shards of all models live."""

    def shard(self, name: str) -> CacheShard:
        """The shard of the model `name`: the same one each time."""
        ...

    @property
    def secret(self) -> bytes:
        """32 random bytes kept with the store: the key of the nonces that fence candidates in prompts.

        They live as long as the answers do, so that equal inputs still give equal prompts.
        """
        ...

    async def aclose(self) -> None:
        """Release what the store holds. May be called again."""
        ...


def is_whole(completion: Completion) -> bool:
    """Whether an answer may be kept: there is text, and the model stopped because it was done."""
    done = completion.finish_reason in {None, "stop"} and completion.refusal is None
    return done and bool(completion.content.strip())


def check_bound(name: str, value: float, *, whole: bool = False) -> None:
    """Raise `BadCall` unless `value` is a positive, finite number (an integer where `whole`)."""
    kinds = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not 0 < value < math.inf:
        raise BadCall(f"{name}={value!r} is not allowed; give a positive {'integer' if whole else 'number'}")


# --- keys --------------------------------------------------------------------------------------


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


# --- in memory ---------------------------------------------------------------------------------

# What CPython keeps beside the text of an entry: the structs, the key, and its slots in two ordered dicts.
_ENTRY_OVERHEAD: Final = 700


class _Entry(NamedTuple):
    completion: Completion
    size: int


class MemoryShard:
    """A shard in memory: the least recently used answers go first, and old ones go on their own.

    All that it does is a few microseconds of dictionary work under a lock, so that orchestrators in
    several threads can share it. `get` and `put` are async for the protocol's sake only: they never
    wait and are no checkpoints.
    """

    def __init__(
        self, *, max_entries: int, max_bytes: int, ttl: float | None, now: Callable[[], float] | None = None
    ) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._ttl = ttl
        self._now = now if now is not None else Timeline()
        self._lock = threading.Lock()
        self._entries: OrderedDict[CacheKey, _Entry] = OrderedDict()  # least recently used first
        self._expiries: OrderedDict[CacheKey, float] = OrderedDict()  # oldest first; empty without a ttl
        self._bytes = 0
        self._hits = self._misses = self._stored = self._refused = self._evictions = self._expirations = 0

    def get_nowait(self, key: CacheKey) -> Completion | None:
        """The answer kept under `key`, or None."""
        with self._lock:
            self._expire()
            entry = self._entries.get(key)
            if entry is None:
                self._misses += 1
                return None
            self._entries.move_to_end(key)
            self._hits += 1
            return entry.completion

    def put_nowait(self, key: CacheKey, completion: Completion) -> None:
        """Keep a whole answer under `key`, in place of an older one; drop any other answer."""
        size = _memory_size(completion)
        with self._lock:
            self._expire()
            if size > self._max_bytes or not is_whole(completion):
                self._refused += 1
                return
            self._drop(key)
            while len(self._entries) >= self._max_entries or self._bytes + size > self._max_bytes:
                self._drop(next(iter(self._entries)))
                self._evictions += 1
            self._entries[key] = _Entry(completion, size)
            self._bytes += size
            self._stored += 1
            if self._ttl is not None:
                self._expiries[key] = self._now() + self._ttl

    async def get(self, key: CacheKey) -> Completion | None:
        """As `get_nowait`; never waits, and is no checkpoint."""
        return self.get_nowait(key)

    async def put(self, key: CacheKey, completion: Completion) -> None:
        """As `put_nowait`; never waits, and is no checkpoint."""
        self.put_nowait(key, completion)

    def statistics(self) -> CacheStatistics:
        """The counters of this shard; expired answers count as entries until the next lookup."""
        with self._lock:
            return CacheStatistics(
                hits=self._hits,
                misses=self._misses,
                stored=self._stored,
                refused=self._refused,
                evictions=self._evictions,
                expirations=self._expirations,
                entries=len(self._entries),
                bytes=self._bytes,
            )

    def clear(self) -> None:
        """Forget every answer; the counters stay."""
        with self._lock:
            self._entries.clear()
            self._expiries.clear()
            self._bytes = 0

    def _expire(self) -> None:
        if self._ttl is None:
            return
        now = self._now()
        while self._expiries and next(iter(self._expiries.values())) <= now:
            self._drop(next(iter(self._expiries)))
            self._expirations += 1

    def _drop(self, key: CacheKey) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= entry.size
            self._expiries.pop(key, None)


def _memory_size(completion: Completion) -> int:
    values = msgspec.structs.astuple(completion)
    return _ENTRY_OVERHEAD + sum(sys.getsizeof(value) for value in values if isinstance(value, str))


class MemoryCache:
    """Keeps answers in this process. The bounds hold for each model's shard on its own.

    Args:
        max_entries: answers a shard keeps at most.
        max_bytes: memory that a shard's answers take up at most; a bigger answer is not kept.
        ttl: seconds for which an answer is good, by trio's clock; None: for ever.

    Raises:
        BadCall: a bound is not positive.
    """

    def __init__(
        self, *, max_entries: int = 4096, max_bytes: int = 64 * 2**20, ttl: float | None = 3600.0
    ) -> None:
        check_bound("max_entries", max_entries, whole=True)
        check_bound("max_bytes", max_bytes, whole=True)
        if ttl is not None:
            check_bound("ttl", ttl)
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._ttl = ttl
        self._shards: dict[str, MemoryShard] = {}
        self._secret = new_secret(SECRET_BYTES)

    @property
    def secret(self) -> bytes:
        """32 random bytes, new for each store."""
        return self._secret

    def shard(self, name: str) -> MemoryShard:
        """The shard of the model `name`: the same one each time."""
        shard = self._shards.get(name)
        if shard is None:
            made = MemoryShard(max_entries=self._max_entries, max_bytes=self._max_bytes, ttl=self._ttl)
            shard = self._shards.setdefault(name, made)  # another thread may have been first
        return shard

    async def aclose(self) -> None:
        """Forget every answer. The memory is free even if this is cancelled."""
        for shard in list(self._shards.values()):
            shard.clear()
        await trio.lowlevel.checkpoint()
