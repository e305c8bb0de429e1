"""What stores have to do: one of models' answers, and one of limits that several processes share.

Each model has a shard of its own, so the answers of one model never push out those of another, and are never
given in their place. A shard keeps whole answers only: after an error, or an answer that stopped early, the
model is asked again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias, runtime_checkable

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ultra.messages import Completion

__all__ = [
    "GRANT_SECONDS",
    "SECRET_BYTES",
    "CacheKey",
    "CacheShard",
    "CacheStatistics",
    "CacheStore",
    "Decision",
    "KeepsConnections",
    "LimitState",
    "LimitsUnavailable",
    "SharedLimits",
    "TaskStatus",
    "Want",
    "is_whole",
]

CacheKey: TypeAlias = bytes
"""The digest that `ultra.stores.keys.cache_key` makes: 32 bytes that tell nothing about the prompt."""

SECRET_BYTES: Final = 32

GRANT_SECONDS: Final = 60.0
"""How long a grant of `SharedLimits` lasts that nobody renews."""


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


class TaskStatus(Protocol):
    """What a nursery of trio or a task group of anyio gives to a task that it starts."""

    def started(self) -> None:
        """Tell that the task has begun."""
        ...


@runtime_checkable
class KeepsConnections(Protocol):
    """A store of any kind that can be used without a connection for each use, while somebody owns them.

    An entered orchestrator starts this for its cache and its journal, a service for its limits.
    """

    async def keep_connected(self, *, task_status: TaskStatus | None = None) -> None:
        """Keep connections open for all uses in this trio or asyncio run, until cancelled.

        `task_status`, if it is given, is told when they are kept: they need not be open then. What is under
        way when this is cancelled may end, but for a bounded time.
        """
        ...


def is_whole(completion: Completion) -> bool:
    """Return whether an answer may be kept: it has text, or calls of tools, and its model was done.

    A client may report no reason; the reasons are `stop` and `tool_calls`, and no other.
    """
    done = completion.finish_reason in {None, "stop", "tool_calls"} and completion.refusal is None
    return done and bool(completion.content.strip() or completion.tool_calls)


class Want(Struct, frozen=True, kw_only=True):
    """One limit, and what a piece of work would take of it.

    `kind` says what the limit is:

    - ``rate``: a token bucket that holds `most` and is filled by `most` a minute. An `amount` above `most`
      takes the whole bucket.
    - ``budget``: at most `most` in all, until `until` (seconds of Unix time), when it may be forgotten; the
      next period has another name. It grants while what is spent and reserved is below `most`, so it is
      passed by the `amount` of one grant at most.
    - ``lease``: at most `most` at once; `amount` of them are held until the grant is settled.
    """

    name: str
    kind: Literal["rate", "budget", "lease"]
    most: float
    amount: float = 1.0
    until: float = 0.0


class LimitState(Struct, frozen=True, kw_only=True):
    """What is left of a limit; `reset`: seconds until all of it is there again, as far as that is known."""

    left: float
    reset: float = 0.0


class Decision(Struct, frozen=True, kw_only=True):
    """What `SharedLimits.take` has decided.

    Attributes:
        grant: the name of what was taken, for `settle` and `renew`; None: nothing was taken.
        refused: the name of the first limit that does not allow it.
        retry_after: seconds until that limit may allow it; None: that is not known.
        states: what is left of each limit now, by its name.
    """

    grant: str | None = None
    refused: str | None = None
    retry_after: float | None = None
    states: dict[str, LimitState] = {}


class LimitsUnavailable(Exception):
    """The limits cannot be read or changed now; the message says why."""


class SharedLimits(Protocol):
    """Rates, budgets and leases that several processes may share. Works on trio and on asyncio.

    All that a piece of work wants is taken at once or not at all. A grant that is neither renewed nor settled
    for `GRANT_SECONDS` is over: its process has died. Then its leases are free again, and what it had
    reserved of budgets counts as spent, because it may have been.
    """

    async def take(self, wants: Sequence[Want]) -> Decision:
        """Take all of `wants`, or say which one does not allow it.

        Cancelled, it has taken all or nothing; what was taken is over after `GRANT_SECONDS`.

        Raises:
            LimitsUnavailable: nothing was taken, as far as is known.
        """
        ...

    async def settle(self, grant: str, used: Mapping[str, float]) -> None:
        """End a grant. `used` is what was used in truth, by the name of the limit, where it is known.

        A grant that is over, or unknown, is left alone.

        Raises:
            LimitsUnavailable: the grant goes on until it is settled again, or over.
        """
        ...

    async def renew(self, grants: Sequence[str]) -> None:
        """Let grants last for `GRANT_SECONDS` from now. Raises `LimitsUnavailable`."""
        ...

    async def aclose(self) -> None:
        """Release what is held: files, connections. May be called again."""
        ...
