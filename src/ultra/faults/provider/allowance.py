"""What a provider allows a minute, and what it says about that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from ultra.actors.model.token_bucket import TokenBucket
from ultra.errors import BadCall
from ultra.faults.provider.exchange import Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Allowance", "Level"]


class Level(Struct, frozen=True):
    """How much is allowed a minute, how much of it is left, and when it is whole again [s from now]."""

    limit: int
    remaining: int
    reset: float


class Allowance:
    """Requests and tokens a minute, refilled continuously; a request that is refused takes nothing.

    `clock` gives the time [s].
    """

    def __init__(self, requests: int, tokens: int, clock: Callable[[], float]) -> None:
        for name, value in (("requests_per_minute", requests), ("tokens_per_minute", tokens)):
            if type(value) is not int or value < 1:
                raise BadCall(f"{name}={value!r} is not allowed; give a whole number, 1 or more")
        self._limits = {"requests": requests, "tokens": tokens}
        self._buckets = {name: TokenBucket(limit) for name, limit in self._limits.items()}
        self._clock = clock

    def take(self, tokens: int) -> Failure | None:
        """Take one request and its `tokens`, or say why not."""
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
        """Take the tokens of an answer, into debt if need be."""
        self._spend("tokens", tokens, self._clock())

    def levels(self) -> Mapping[str, Level]:
        """The state of the ``requests`` and the ``tokens``."""
        now = self._clock()
        return {
            name: Level(
                self._limits[name],
                max(0, int(bucket.available(now))),
                max(0.0, bucket.ready_in(bucket.capacity, now)),
            )
            for name, bucket in self._buckets.items()
        }

    def _spend(self, name: str, units: int, now: float) -> None:
        bucket = self._buckets[name]
        bucket.close(bucket.take(units, now))
