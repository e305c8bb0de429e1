"""The limits of a model's calls: calls at once, rates, and the pauses that the provider asks for.

The limiter has no task and no timer of its own: each call waits in its own task.
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

import trio
from msgspec import Struct

from ultra._support.checks import check_count, check_flag, check_number, check_seconds
from ultra._support.clock import ContinuousClock
from ultra.actors.model.pauses import Pauses
from ultra.actors.model.token_bucket import Grant, TokenBucket
from ultra.errors import BadCall, CircuitOpen, ModelError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from ultra.clients.wire.rate_limits import RateLimits
    from ultra.stores.shared_contract import Reservation

__all__ = ["Limiter", "LimiterStatistics", "Limits", "Permit", "SharedRates"]

Grants: TypeAlias = tuple[Grant | None, Grant | None]
"""What a call has taken of the requests and of the tokens; None where there was no limit."""

_NOTHING: Final[Grants] = (None, None)

_TOLERANCE: Final = 1e-6
"""Seconds. A call that may start within so short a time may start now, since times are sums of floats and
have rounding errors. These errors do not add up: buckets count what is taken, not the waits.
"""

_LEAST_LEARNED: Final = (1.0, 100.0)
"""Requests and tokens a minute. No provider has a limit below these, so one that is announced is an error."""

_MOST_LEARNED: Final = 1e12
"""Requests or tokens a minute; a limit above this is none."""


class Limits(Struct, frozen=True, kw_only=True):
    """What the calls of one model may use. None means no limit.

    Attributes:
        concurrency: calls at once.
        requests_per_minute: this allowance refills continuously, up to the amount of one minute. So in any
            w minutes there are at most 1 + w times as many requests, which is how providers count.
        tokens_per_minute: the same for tokens, of prompt and answer together.
        max_wait: seconds that a call waits for its permit before it is rejected.
        learn: whether to keep to the limits that the provider announces in headers, too. Those that cannot
            be true are ignored (below 1 request or 100 tokens a minute). A call that needs more tokens than
            an announced limit is not rejected: it waits until all of that limit is available.

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
        check_flag("learn", self.learn)


class LimiterStatistics(Struct, frozen=True, kw_only=True):
    """The state of a limiter at one moment. `paused_for` is seconds; None: there is no limit.

    `abandoned` are those of the calls in flight that were given up, and whose threads still run.
    """

    in_flight: int
    abandoned: int
    waiting: int
    admitted: int
    rejected: int
    paused_for: float
    requests_available: float | None
    tokens_available: float | None


class SharedRates(Protocol):
    """The rates of a model that several processes keep to together."""

    async def reserve(self, tokens: float, max_wait: float) -> Reservation | None:
        """Take one request and so many tokens; see `SharedModels.reserve`. None: nobody can be asked."""
        ...

    def take_alone(self, tokens: float) -> float:
        """Note a call for which nobody could be asked; return what `settle` needs of it."""
        ...

    def settle(self, reserved_at: float, *, requests: float, tokens: float) -> None:
        """Correct what was taken by what was used more; see `SharedModels.settle`."""
        ...


class Permit:
    """The permission to make one call; a context manager that releases it at the end.

    If `CircuitOpen` leaves the block, the call was not sent, and the permit is cancelled.
    """

    __slots__ = ("_grants", "_limiter", "_reserved_at", "_tokens")

    def __init__(
        self, limiter: Limiter, grants: Grants, tokens: float = 0.0, reserved_at: float | None = None
    ) -> None:
        self._limiter = limiter
        self._grants: Grants | None = grants
        self._tokens = tokens
        self._reserved_at = reserved_at  # of the shared rates, if there are any

    def settle(self, tokens: float) -> None:
        """Correct the estimated number of tokens to what the call used; the difference is taken or returned.

        After the release this does nothing.
        """
        if self._grants is not None:
            self._limiter._settle(self._grants, tokens=tokens)  # noqa: SLF001 - a permit is a part of its limiter
            self._settle_shared(0.0, tokens)

    def cancel(self) -> None:
        """Return all that was taken, for a call that was not sent. After the release this does nothing."""
        if self._grants is not None:
            self._limiter._settle(self._grants, requests=0, tokens=0)  # noqa: SLF001 - as above
            self._settle_shared(-1.0, 0.0)
            self.release()

    def release(self) -> None:
        """Let the next call start. May be called again."""
        if self._grants is not None:
            grants, self._grants = self._grants, None
            self._limiter._release(grants)  # noqa: SLF001 - as above

    def _settle_shared(self, requests: float, tokens: float) -> None:
        shared = self._limiter.shared
        if shared is not None and self._reserved_at is not None:
            shared.settle(self._reserved_at, requests=requests, tokens=tokens - self._tokens)
            self._tokens = tokens

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, CircuitOpen):
            self.cancel()
        self.release()


class Limiter:
    """Gives permits to the calls of one model, first come, first served, as its `Limits` allow.

    The first call in the queue waits until all that it needs is available, and takes it in one step. So a
    call that waits, is rejected or is cancelled has taken nothing. The calls behind it wait even if they
    need less, so that no call waits forever. For use within one trio run at a time. ::

        with await limiter.acquire(tokens=1200) as permit:
            completion = await client.generate(prompt)
            permit.settle(completion.usage.total)
    """

    def __init__(self, model_name: str, limits: Limits | None = None) -> None:
        self.limits = limits if limits is not None else Limits()
        self.shared: SharedRates | None = None
        self._model_name = model_name
        self._now = ContinuousClock()
        self._requests = _bucket(self.limits.requests_per_minute, floor=1)
        self._tokens = _bucket(self.limits.tokens_per_minute, floor=0)
        self._first = trio.StrictFIFOLock()  # held by the first call in the queue
        self._changed = trio.lowlevel.ParkingLot()  # where the first call waits
        self._pauses = Pauses()
        self._concurrency = self.limits.concurrency or math.inf
        self._in_flight = self._waiting = self._admitted = self._rejected = 0
        self._abandoned: set[object] = set()  # a mark for each slot of a thread that was given up
        self._blocked_since: float | None = None  # since when such threads have all slots
        self._trio_token: trio.lowlevel.TrioToken | None = None  # of the run whose calls wait

    @property
    def counts_tokens(self) -> bool:
        """Whether there is a limit of tokens, configured or learned."""
        return self._tokens is not None

    def acquire_nowait(self, tokens: float = 0) -> Permit:
        """Return a permit if this call need not wait.

        Raises:
            trio.WouldBlock: it would have to wait, or other processes would have to be asked; nothing was
                taken.
            BadCall, ModelError: as from `acquire`.
        """
        if self.shared is not None and self._shared_rates is not None:
            raise trio.WouldBlock
        self._check_now(tokens)
        return self._admit(tokens)

    def _check_now(self, tokens: float) -> None:
        """Raise `WouldBlock` if this process does not allow the call now."""
        _check_tokens(tokens)
        if self._waiting or self._delay(tokens, 1) > _TOLERANCE:
            raise trio.WouldBlock

    async def try_acquire(self, tokens: float = 0) -> Permit | None:
        """Return a permit if no call has to wait for it longer than the shared rates take to tell.

        Raises:
            BadCall, ModelError: as from `acquire`.
        """
        shared, reservation = self._shared_rates, None
        try:
            self._check_now(tokens)
            if shared is None:
                return self._admit(tokens)
            reservation = await shared.reserve(tokens, 0.0)
            if reservation is not None and not reservation.taken:
                return None
            self._check_now(tokens)
        except trio.WouldBlock:
            if shared is not None and reservation is not None:
                shared.settle(reservation.at, requests=-1.0, tokens=-tokens)
            return None
        return self._admit(tokens, shared.take_alone(tokens) if reservation is None else reservation.at)

    async def acquire(self, tokens: float = 0, *, patience: float = math.inf) -> Permit:
        """Wait for a permit for a call that will use about so many `tokens`, and return it. A checkpoint.

        Cancelling this takes nothing, and the next call in the queue becomes the first. `patience` [s] is for
        threads of given up calls (`keep_slot`): once they have had all slots for so long, no call waits.

        Raises:
            BadCall: `tokens` is negative or not a number.
            ModelError: of kind ``timeout``: threads of given up calls have all slots. Retryable.
            ModelError: of kind ``rate_limit``: the call needs more tokens than a minute allows, or the permit
                would come after more than `max_wait` seconds. Raised as soon as that is certain.
        """
        _check_tokens(tokens)
        max_wait = math.inf if self.limits.max_wait is None else self.limits.max_wait
        self._waiting += 1
        if self._pauses.spreads:
            self._changed.unpark_all()  # the more calls wait, the closer they follow each other
        self._trio_token = trio.lowlevel.current_trio_token()
        try:
            with trio.move_on_after(max_wait) as wait:
                await self._first.acquire()
                try:
                    await self._until_ready(tokens, wait.deadline, patience)
                    if (shared := self._shared_rates) is not None:
                        return await self._reserved(shared, tokens, wait.deadline, patience)
                    # No checkpoint follows, so the permit always reaches the caller.
                    return self._admit(tokens)
                finally:
                    self._first.release()
            raise self._rejection(f"it waited {max_wait:g} s for its turn, which is the most that it may")
        finally:
            self._waiting -= 1

    def keep_slot(self) -> Callable[[], None]:
        """Keep a slot of `concurrency` for a thread that goes on though its call was given up.

        Call what this returns when the thread has ended, from any thread: then the slot is free.
        """
        mark = object()
        self._abandoned.add(mark)
        if len(self._abandoned) >= self._concurrency:
            self._blocked_since = self._now()
            self._changed.unpark_all()

        def end() -> None:
            self._abandoned.discard(mark)
            self._blocked_since = None
            if self._trio_token is not None:
                with suppress(trio.RunFinishedError):
                    self._trio_token.run_sync_soon(self._changed.unpark_all)

        return end

    def share(self, replicas: int, left: tuple[float, float] = (math.inf, math.inf)) -> None:
        """Keep to one of so many parts of the configured rates: the others cannot be asked. 1: to all.

        Of `left`, requests and tokens that are there for all of them, this is one part, too.
        """
        limits, now = self.limits, self._now()
        rates = limits.requests_per_minute, limits.tokens_per_minute
        for bucket, per_minute, there in zip((self._requests, self._tokens), rates, left, strict=True):
            if bucket is not None and per_minute is not None:
                bucket.learn(per_minute / replicas, there / replicas, now)
        self._changed.unpark_all()

    def pause(self, seconds: float) -> bool:
        """Start no call for so many seconds from now, as a provider's Retry-After asks, an hour at most.

        Calls that are under way go on. A longer pause that has begun before is not shortened. After the
        pause, the calls that waited start one after the other, within a quarter of its length or 5 seconds.
        Returns whether calls now wait for noticeably longer than before.
        """
        if seconds <= 0:
            return False
        is_longer = self._pauses.begin(seconds, self._now())
        self._changed.unpark_all()
        return is_longer

    def learn(self, announced: RateLimits) -> None:
        """Keep to the limits that the provider announced in headers, if `Limits.learn` is true.

        A configured rate is never raised. The provider's number of what is left counts where it is lower
        than the limiter's own: other programs may use the same key.
        """
        if not self.limits.learn:
            return
        self._requests = self._learned(
            self._requests,
            self.limits.requests_per_minute,
            1,
            *_believable(announced.requests_per_minute, announced.requests_remaining, _LEAST_LEARNED[0]),
        )
        self._tokens = self._learned(
            self._tokens,
            self.limits.tokens_per_minute,
            0,
            *_believable(announced.tokens_per_minute, announced.tokens_remaining, _LEAST_LEARNED[1]),
        )
        self._changed.unpark_all()

    def forked(self) -> None:
        """Forget the calls under way and those that wait: they are the parent's, and end there."""
        self._first = trio.StrictFIFOLock()
        self._changed = trio.lowlevel.ParkingLot()
        self._in_flight = self._waiting = 0
        self._abandoned = set()
        self._blocked_since = self._trio_token = None

    def statistics(self) -> LimiterStatistics:
        """Return the state at this moment; raise `RuntimeError` outside of trio."""
        now = self._now()
        return LimiterStatistics(
            in_flight=self._in_flight + len(self._abandoned),
            abandoned=len(self._abandoned),
            waiting=self._waiting,
            admitted=self._admitted,
            rejected=self._rejected,
            paused_for=max(0.0, self._pauses.until - now),
            requests_available=None if self._requests is None else self._requests.available(now),
            tokens_available=None if self._tokens is None else self._tokens.available(now),
        )

    async def _until_ready(self, tokens: float, deadline: float, patience: float) -> None:
        while (delay := self._delay(tokens, self._waiting)) > _TOLERANCE:
            # A delay that is known and too long is rejected at once. An infinite one depends on the end of
            # other calls, which may come at any time.
            if math.isfinite(delay) and trio.current_time() + delay > deadline + _TOLERANCE:
                raise self._rejection(f"its turn would come in {delay:.1f} s at the earliest", delay)
            if delay == math.inf and (since := self._blocked_since) is not None:
                delay = since + patience - self._now()
                if delay <= _TOLERANCE:
                    raise self._blocked()
            with trio.move_on_after(delay):
                await self._changed.park()

    @property
    def _shared_rates(self) -> SharedRates | None:
        limits = self.limits
        has_rates = limits.requests_per_minute is not None or limits.tokens_per_minute is not None
        return self.shared if has_rates else None

    async def _reserved(self, shared: SharedRates, tokens: float, deadline: float, patience: float) -> Permit:
        """Wait until the rates that are shared with other processes allow the call, too.

        The first call in the queue alone does this, so each process has one place in theirs.
        """
        reservation = await shared.reserve(tokens, deadline - trio.current_time())
        if reservation is None:  # those of this process alone count, and may be less now
            await self._until_ready(tokens, deadline, patience)
            return self._admit(tokens, shared.take_alone(tokens))
        if not reservation.taken:
            raise self._rejection(
                f"its turn would come in {reservation.wait:.1f} s at the earliest", reservation.wait
            )
        try:
            if reservation.wait > 0:
                await trio.sleep(reservation.wait)
            await self._until_ready(tokens, deadline, patience)  # a pause may have begun meanwhile
            return self._admit(tokens, reservation.at)
        except BaseException:
            shared.settle(reservation.at, requests=-1.0, tokens=-tokens)
            raise

    def _delay(self, tokens: float, waiting: int) -> float:
        """Return the seconds until such a call may start; infinite if another call has to end first.

        `waiting` calls, this one included, wait for their turn.
        """
        delay = -math.inf
        # Most models have a limit of concurrency alone, which needs no clock.
        if not (self._requests is None and self._tokens is None and self._pauses.until == -math.inf):
            delay = max(self._delay_in_time(tokens), self._pauses.delay_after(waiting, self._now()))
        taken = self._in_flight + len(self._abandoned)
        return math.inf if delay <= _TOLERANCE and taken >= self._concurrency else delay

    def _delay_in_time(self, tokens: float) -> float:
        """Return the seconds until pauses and rates allow such a call; below 0 if they allow it now."""
        configured = self.limits.tokens_per_minute
        if configured is not None and tokens > configured:
            raise self._rejection(
                f"it needs about {tokens:g} tokens, and {configured:g} a minute are allowed"
            )
        now = self._now()
        delay = self._pauses.until - now
        if self._requests is not None:
            delay = max(delay, self._requests.ready_in(1, now))
        if self._tokens is not None:
            # What is learned may be wrong, and the provider knows best what is too much for it.
            delay = max(delay, self._tokens.ready_in(min(tokens, self._tokens.capacity), now))
        return delay

    def _admit(self, tokens: float, reserved_at: float | None = None) -> Permit:
        self._in_flight += 1
        self._admitted += 1
        if self._pauses.spreads:
            self._pauses.started(self._now())
        if self._requests is None and self._tokens is None:
            return Permit(self, _NOTHING)
        now = self._now()
        grants = (
            None if self._requests is None else self._requests.take(1, now),
            None if self._tokens is None else self._tokens.take(tokens, now),
        )
        return Permit(self, grants, tokens, reserved_at)

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

    def _blocked(self) -> ModelError:
        self._rejected += 1
        return ModelError(
            f"all {self._concurrency} calls that model {self._model_name!r} may make at once were given up, "
            "and their threads still run: give its synchronous client a timeout of its own, or make it async",
            kind="timeout",
            retryable=True,
        )

    def _rejection(self, reason: str, retry_after: float | None = None) -> ModelError:
        self._rejected += 1
        return ModelError(
            f"the limits of model {self._model_name!r} reject the call: {reason}",
            kind="rate_limit",
            retryable=False,
            retry_after=retry_after,
        )

    def _learned(
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


def _believable(
    per_minute: float | None, remaining: float | None, least: float
) -> tuple[float | None, float | None]:
    """Return a limit and what is left of it, or None for both where the limit cannot be true."""
    if per_minute is not None and not least <= per_minute <= _MOST_LEARNED:
        return None, None
    return per_minute, remaining if remaining is not None and remaining >= 0 else None


def _check_tokens(tokens: float) -> None:
    if not 0 <= tokens < math.inf:
        raise BadCall(f"tokens={tokens!r} is not allowed; give the estimated number of tokens, 0 or more")


def _bucket(per_minute: float | None, floor: float) -> TokenBucket | None:
    return None if per_minute is None else TokenBucket(per_minute, floor)
