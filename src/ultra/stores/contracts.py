"""What a store of models' answers has to do.

Each model has a shard of its own, so the answers of one model never push out those of another, and are never
given in their place. A shard keeps whole answers only: after an error, or an answer that stopped early, the
model is asked again.
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
"""The digest that `ultra.stores.keys.cache_key` makes: 32 bytes that tell nothing about the prompt."""

SECRET_BYTES: Final = 32


class CacheStatistics(Struct, frozen=True, kw_only=True):
    """What one shard has done since it was opened, and what it holds now.

    Attributes:
        hits: lookups that found an answer.
        misses: lookups that found none.
        stored: answers that were kept.
        refused: answers that were not kept: they are not whole, or bigger than the shard may be.
        evictions: answers that were removed to make room.
        expirations: answers that were removed because they were too old.
        failures: reads and writes that the store could not do; such a read is a miss, too.
        entries: answers that the shard holds.
        bytes: what they take up, as far as the store can tell.
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
    """The answers of one model. A shard raises no error: what goes wrong in it is a miss.

    A shard whose methods never wait, as one in memory, may have ``instant = True``: then an answer is kept
    before the reply. Otherwise a lookup may take 1.5 seconds. Answers are kept one by one, beside the
    replies, and keeping one may take two seconds. A shard that raises or takes longer is not used for 30
    seconds.
    """

    async def get(self, key: CacheKey) -> Completion | None:
        """Return the answer that is kept under `key`, or None.

        Cancelled, it leaves the shard as it was.
        """
        ...

    async def put(self, key: CacheKey, completion: Completion) -> None:
        """Keep `completion` under `key`, in place of an older answer, if it is whole (`is_whole`).

        Cancelled, it has kept the answer or has not, but never a part of it.
        """
        ...

    def statistics(self) -> CacheStatistics:
        """Return the counters of this shard as they are now."""
        ...


@runtime_checkable
class CacheStore(Protocol):
    """The shards of all models."""

    def shard(self, name: str) -> CacheShard:
        """Return the shard of the model `name`, the same one each time."""
        ...

    @property
    def secret(self) -> bytes:
        """32 random bytes that are kept with the answers, and as long as they are.

        They are the key of the nonces that fence candidates in prompts. Only under the same key do equal
        inputs give equal prompts, whose answers are then found.
        """
        ...

    async def aclose(self) -> None:
        """Release what the store holds: memory, files, connections. May be called again."""
        ...


def is_whole(completion: Completion) -> bool:
    """Return whether an answer may be kept: it has text, or calls of tools, and its model was done.

    A client may report no reason; the reasons are `stop` and `tool_calls`, and no other.
    """
    done = completion.finish_reason in {None, "stop", "tool_calls"} and completion.refusal is None
    return done and bool(completion.content.strip() or completion.tool_calls)
