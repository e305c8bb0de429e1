"""How fast and how wide a model may be called: rates, concurrency, and pauses that the provider asks for.

Nothing here has a task or a timer of its own; whoever waits for a turn does the waiting.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, TypeAlias

import trio
from msgspec import Struct

from ultra._support.checks import check_count, check_number, check_seconds
from ultra._support.clock import ContinuousClock
from ultra.actors.model.token_bucket import Grant, TokenBucket
from ultra.errors import BadCall, CircuitOpen, ModelError

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from ultra.clients.wire.rate_limits import RateLimits

__all__ = ["Limiter", "LimiterStatistics", "Limits", "Permit"]

Grants: TypeAlias = tuple[Grant | None, Grant | None]
"""What a call took of the requests and of the tokens; None where there was no limit."""

_NOTHING: Final[Grants] = (None, None)

# Times are sums of floats, so a moment that is waited for may be missed by a rounding error. What is
# due within a microsecond is due; nothing accumulates, for buckets count what is taken, not the waits.
_GRAIN: Final = 1e-6


class Limits(Struct, frozen=True, kw_only=True):
    """What one model's calls may use. None means no limit.

    `concurrency` calls at once. `requests_per_minute` and `tokens_per_minute` (prompt and answer)
    refill continuously, and a minute's worth may pile up while nothing is called: over any window of
    w minutes at most 1 + w times the rate, which is how providers count. `max_wait`: seconds a call
    waits for its turn before it is rejected. `learn`: also keep to what the provider's headers say.

    Raises:
        BadCall: a number is not above 0 and finite.
    """

    concurrency: int | None = 32
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    max_wait: float | None = None
    learn: bool = False

    def __post_init__(self) -> None:
        check_count("concurrency", self.concurrency, optional=True)
        for name in ("requests_per_minute", "tokens_per_minute"):
            check_number(name, getattr(self, name), positive=True, optional=True)
        check_seconds("max_wait", self.max_wait, positive=True, optional=True)


class LimiterStatistics(Struct, frozen=True, kw_only=True):
    """A limiter's state. `paused_for` is seconds; what is available is None where there is no limit."""

    in_flight: int
    waiting: int
    admitted: int
    rejected: int
    paused_for: float
    requests_available: float | None
    tokens_available: float | None


class Permit:
    """The right to make one call; a context manager that gives its place up at the end.

    A call that the circuit breaker rejects inside the block gives everything back.
    """

    __slots__ = ("_grants", "_limiter")

    def __init__(self, limiter: Limiter, grants: Grants) -> None:
        self._limiter = limiter
        self._grants: Grants | None = grants

    def settle(self, tokens: float) -> None:
        """Say how many tokens the call really used; the difference is charged or comes back.

        Does nothing after the release. Without it the estimate stands.
        """
        if self._grants is not None:
            self._limiter._settle(self._grants, tokens=tokens)  # noqa: SLF001 - a permit is a part of its limiter

    def cancel(self) -> None:
        """Give everything back, for a call that was never sent. Does nothing after the release."""
        if self._grants is not None:
            self._limiter._settle(self._grants, requests=0, tokens=0)  # noqa: SLF001 - as above
            self.release()

    def release(self) -> None:
        """Make room for the next call. May be called again."""
        if self._grants is not None:
            grants, self._grants = self._grants, None
            self._limiter._release(grants)  # noqa: SLF001 - as above

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, CircuitOpen):
            self.cancel()
        self.release()


class Limiter:
    """Lets the calls of one model through in the order in which they came, as its `Limits` allow.

    The first in line waits until everything that it needs is there at once, and then takes it in one
    step: a call that waits, is rejected or is cancelled holds nothing. Those behind it wait, even
    where they would need less, so that none starves. For use within one trio run at a time.
    """

    def __init__(self, model_name: str, limits: Limits | None = None) -> None:
        self.limits = limits if limits is not None else Limits()
        self._model_name = model_name
        self._now = ContinuousClock()
        self._requests = _bucket(self.limits.requests_per_minute, floor=1)
        self._tokens = _bucket(self.limits.tokens_per_minute, floor=0)
        self._turn = trio.StrictFIFOLock()  # held by the first in line
        self._changed = trio.lowlevel.ParkingLot()  # where the first in line waits
        self._paused_until = -math.inf
        self._width = self.limits.concurrency or math.inf
        self._in_flight = self._waiting = self._admitted = self._rejected = 0

    @property
    def counts_tokens(self) -> bool:
        """Whether tokens are limited, by what was configured or learned."""
        return self._tokens is not None

    def acquire_nowait(self, tokens: float = 0) -> Permit:
        """Let a call through if nobody waits and it need not wait either.

        Raises:
            trio.WouldBlock: it has to wait; nothing was taken.
            BadCall, ModelError: as from `acquire`.
        """
        _check_tokens(tokens)
        if self._waiting or self._delay(tokens) > _GRAIN:
            raise trio.WouldBlock
        return self._admit(tokens)

    async def acquire(self, tokens: float = 0) -> Permit:
        """Wait for the turn of a call that is estimated to use `tokens`. A checkpoint.

        Cancelling it leaves nothing taken, and the next in line moves up.

        Raises:
            BadCall: `tokens` is negative or not a number.
            ModelError: of kind ``rate_limit``: more tokens than a minute allows, or the turn does not
                come within `max_wait`. It is raised as soon as that is certain.
        """
        _check_tokens(tokens)
        max_wait = math.inf if self.limits.max_wait is None else self.limits.max_wait
        self._waiting += 1
        try:
            with trio.move_on_after(max_wait) as patience:
                await self._turn.acquire()
                try:
                    await self._until_ready(tokens, patience)
                    # No checkpoint from here on, so that what is taken always reaches the caller.
                    return self._admit(tokens)
                finally:
                    self._turn.release()
            raise self._rejection(f"it waited {max_wait:g} s for its turn, which is the most that it may")
        finally:
            self._waiting -= 1

    def pause(self, seconds: float) -> None:
        """Start no call for `seconds` from now: what a provider's Retry-After asks for.

        Calls in flight go on. A longer pause that is already running stands.
        """
        if seconds > 0:
            self._paused_until = max(self._paused_until, self._now() + seconds)
            self._changed.unpark_all()

    def learn(self, told: RateLimits) -> None:
        """Keep to the limits that the provider's headers told, where `Limits.learn` asks for it.

        A rate that was configured is only ever lowered. What is left of a minute's allowance is
        believed where it is less than was counted here: others may be using the same key.
        """
        if not self.limits.learn:
            return
        self._requests = self._taught(
            self._requests,
            self.limits.requests_per_minute,
            1,
            told.requests_per_minute,
            told.requests_remaining,
        )
        self._tokens = self._taught(
            self._tokens, self.limits.tokens_per_minute, 0, told.tokens_per_minute, told.tokens_remaining
        )
        self._changed.unpark_all()

    def statistics(self) -> LimiterStatistics:
        """What the limiter holds now. Raises `RuntimeError` outside of trio."""
        now = self._now()
        return LimiterStatistics(
            in_flight=self._in_flight,
            waiting=self._waiting,
            admitted=self._admitted,
            rejected=self._rejected,
            paused_for=max(0.0, self._paused_until - now),
            requests_available=None if self._requests is None else self._requests.available(now),
            tokens_available=None if self._tokens is None else self._tokens.available(now),
        )

    async def _until_ready(self, tokens: float, patience: trio.CancelScope) -> None:
        while (delay := self._delay(tokens)) > _GRAIN:
            # Waiting for a call to end may always be worth while; waiting for a known time is not
            # when it lies beyond the patience.
            if math.isfinite(delay) and trio.current_time() + delay > patience.deadline + _GRAIN:
                raise self._rejection(f"its turn would come in {delay:.1f} s at the earliest", delay)
            with trio.move_on_after(delay):
                await self._changed.park()

    def _delay(self, tokens: float) -> float:
        """Seconds until a call of so many tokens may start; infinite if only the end of another helps."""
        delay = -math.inf
        # Most models are limited in width alone: they pay for no look at the clock.
        if not (self._requests is None and self._tokens is None and self._paused_until == -math.inf):
            delay = self._delay_in_time(tokens)
        return math.inf if delay <= _GRAIN and self._in_flight >= self._width else delay

    def _delay_in_time(self, tokens: float) -> float:
        """Seconds until pauses and rates allow a call of so many tokens; below 0 if they do already."""
        if self._tokens is not None and tokens > self._tokens.capacity:
            raise self._rejection(
                f"it needs about {tokens:g} tokens, and {self._tokens.capacity:g} a minute are allowed"
            )
        now = self._now()
        delay = self._paused_until - now
        if self._requests is not None:
            delay = max(delay, self._requests.ready_in(1, now))
        if self._tokens is not None:
            delay = max(delay, self._tokens.ready_in(tokens, now))
        return delay

    def _admit(self, tokens: float) -> Permit:
        self._in_flight += 1
        self._admitted += 1
        if self._requests is None and self._tokens is None:
            return Permit(self, _NOTHING)
        now = self._now()
        grants = (
            None if self._requests is None else self._requests.take(1, now),
            None if self._tokens is None else self._tokens.take(tokens, now),
        )
        return Permit(self, grants)

    def _settle(self, grants: Grants, *, requests: float | None = None, tokens: float | None = None) -> None:
        if grants is _NOTHING:
            return
        buckets = (self._requests, self._tokens)
        for bucket, grant, units in zip(buckets, grants, (requests, tokens), strict=True):
            if bucket is not None and grant is not None and units is not None:
                bucket.settle(grant, units, self._now())
        self._changed.unpark_all()

    def _release(self, grants: Grants) -> None:
        if grants is not _NOTHING:
            for bucket, grant in zip((self._requests, self._tokens), grants, strict=True):
                if bucket is not None and grant is not None:
                    bucket.close(grant)
        self._in_flight -= 1
        if self._waiting:
            self._changed.unpark_all()

    def _rejection(self, reason: str, retry_after: float | None = None) -> ModelError:
        self._rejected += 1
        return ModelError(
            f"the limits of model {self._model_name!r} reject the call: {reason}",
            kind="rate_limit",
            retryable=False,
            retry_after=retry_after,
        )

    def _taught(
        self,
        bucket: TokenBucket | None,
        configured: float | None,
        floor: float,
        per_minute: float | None,
        remaining: float | None,
    ) -> TokenBucket | None:
        if per_minute is not None and configured is not None:
            per_minute = min(per_minute, configured)
        if bucket is None and per_minute is not None:
            bucket = TokenBucket(per_minute, floor)
        if bucket is not None:
            bucket.learn(per_minute, remaining, self._now())
        return bucket


def _check_tokens(tokens: float) -> None:
    if not 0 <= tokens < math.inf:
        raise BadCall(f"tokens={tokens!r} is not allowed; give the estimated number of tokens, 0 or more")


def _bucket(per_minute: float | None, floor: float) -> TokenBucket | None:
    return None if per_minute is None else TokenBucket(per_minute, floor)
