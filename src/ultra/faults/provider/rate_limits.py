"""The rate limits of a provider: requests and tokens per minute."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from ultra.actors.model.token_bucket import TokenBucket
from ultra.errors import BadCall
from ultra.faults.provider.neutral import Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["LimitState", "RateLimits"]


class LimitState(Struct, frozen=True):
    """The limit per minute, how much of it is left, and the seconds until it is full again (`reset`)."""

    limit: int
    remaining: int
    reset: float


class RateLimits:
    """Two token buckets, for requests and tokens per minute. A request that is refused takes nothing.

    `clock` returns the time [s].
    """

    def __init__(self, requests: int, tokens: int, clock: Callable[[], float]) -> None:
        for name, value in (("requests_per_minute", requests), ("tokens_per_minute", tokens)):
            if type(value) is not int or value < 1:
                raise BadCall(f"{name}={value!r} is not allowed; give a whole number, 1 or more")
        self._limits = {"requests": requests, "tokens": tokens}
        self._buckets = {name: TokenBucket(limit) for name, limit in self._limits.items()}
        self._clock = clock

    def take(self, tokens: int) -> Failure | None:
        """Take one request and its `tokens`. Return the refusal if a limit is reached, else None."""
        now = self._clock()
        needs = {"requests": 1, "tokens": tokens}
        waits = {name: self._buckets[name].ready_in(units, now) for name, units in needs.items()}
        name = max(waits, key=lambda name: waits[name])
        if waits[name] > 0:
            return Failure(
                "rate_limit",
                message=f"Rate limit reached on {name} per min: Limit {self._limits[name]}, "
                f"Requested {needs[name]}. Please try again in {waits[name]:.3f}s.",
                retry_after=waits[name],
            )
        for name, units in needs.items():
            self._spend(name, units, now)
        return None

    def charge(self, tokens: int) -> None:
        """Take the tokens of an answer, which may leave less than none."""
        self._spend("tokens", tokens, self._clock())

    def states(self) -> Mapping[str, LimitState]:
        """Return the state of the limits ``requests`` and ``tokens``."""
        now = self._clock()
        return {
            name: LimitState(
                self._limits[name],
                max(0, int(bucket.available(now))),
                max(0.0, bucket.ready_in(bucket.capacity, now)),
            )
            for name, bucket in self._buckets.items()
        }

    def _spend(self, name: str, units: int, now: float) -> None:
        bucket = self._buckets[name]
        bucket.close(bucket.take(units, now))
