"""What a store of answers must do: one shard for each model, whole answers only.

Every model has a shard of its own, so one model's answers never push out, nor pass for, another's.
A shard keeps only whole successful answers; errors, and answers that stopped early, are asked again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, runtime_checkable

from msgspec import Struct

if TYPE_CHECKING:
    from ultra.messages import Completion

__all__ = [
    "SECRET_BYTES",
    "CacheKey",
    "CacheShard",
    "CacheStatistics",
    "CacheStore",
    "is_whole",
]

CacheKey: TypeAlias = bytes
"""The digest that `ultra.stores.keys.cache_key` makes: 32 bytes that say nothing about the prompt."""

SECRET_BYTES: Final = 32


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
