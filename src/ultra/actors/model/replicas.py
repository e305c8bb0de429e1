"""One model's link to the other processes of the same service: shared rates, pauses, circuits, calls.

Without an answer of the store in bounded time a process goes on by itself, and the log says so: with its part
of the rates, and with calls that another one may be making, too.
"""

from __future__ import annotations

from hashlib import blake2b
from math import inf
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from ultra.actors.model.pauses import LONGEST_PAUSE
from ultra.stores.contracts import is_whole
from ultra.stores.outage import Outage
from ultra.stores.shared_contract import ModelNews, ModelRates

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ultra.actors.model.breaker import CircuitBreaker
    from ultra.actors.model.limits import Limiter
    from ultra.actors.model.single_flight import SharedCall
    from ultra.messages import Completion
    from ultra.stores.contracts import CacheKey
    from ultra.stores.shared_contract import Reservation, SharedModels

__all__ = ["Lease", "ReplicaLink", "Replicas"]

T = TypeVar("T")

_RETRY: Final = 2.0
"""Seconds for which a store that does not work is not asked."""

_SETTLING: Final = 4.0
"""Seconds for which a process keeps to its part when the store works again: all tell first what they owe."""

_PATIENCE: Final = 2.0
"""Seconds after which a store does not work that has not answered."""

_TRIES: Final = 2
"""How often a request waits for a call of another process; then it is made here, whoever makes it, too."""


class Replicas:
    """The other processes, as the models of one orchestrator see them.

    Args:
        store: what all share.
        single_flight: whether equal calls of several processes are made once.
    """

    def __init__(self, store: SharedModels, *, single_flight: bool = True) -> None:
        self.store = store
        self.single_flight = single_flight
        self.outage = Outage("shared limits", _RETRY, store=type(store).__name__)
        self.known = 1  # processes, as far as is known

    async def ask(self, work: Callable[[], Awaitable[T]], *, bounded: bool = True) -> T | None:
        """Return what the store answers; None if it does not work, which the log tells once."""
        if self.outage.is_on:
            return None
        try:
            with trio.fail_after(_PATIENCE if bounded else inf):
                found = await work()
        except Exception as error:  # noqa: BLE001 - the store may be anybody's code
            self.outage.begin(error, replicas=self.known)
            return None
        self.outage.end()
        return found

    def link(self, name: str, limiter: Limiter, breaker: CircuitBreaker) -> ReplicaLink:
        """Return the link of a model; `name` tells it apart from others in all processes."""
        return ReplicaLink(self, name, limiter, breaker)


class ReplicaLink:
    """One model's link: the shared rates of its limiter, and what is told of it."""

    __slots__ = (
        "_breaker",
        "_is_alone",
        "_left",
        "_left_at",
        "_limiter",
        "_name",
        "_owed",
        "_rates",
        "_replicas",
        "_settled_at",
        "_unlisten",
    )

    def __init__(self, replicas: Replicas, name: str, limiter: Limiter, breaker: CircuitBreaker) -> None:
        self._replicas = replicas
        self._name = name
        self._limiter = limiter
        self._breaker = breaker
        limits = limiter.limits
        self._rates = ModelRates(limits.requests_per_minute, limits.tokens_per_minute)
        self._is_alone = False  # without the store, or not yet with it again
        self._settled_at: float | None = None  # when all have told what they owe
        self._owed = (0.0, 0.0)
        self._left = (inf, inf)
        self._left_at = 0.0
        self._unlisten = replicas.store.listen(name, self._hear)
        limiter.shared = self
        breaker.on_change = self._circuit_changed

    def close(self) -> None:
        """Hear nothing more."""
        self._unlisten()

    # --- rates ---------------------------------------------------------------------------------------

    async def reserve(self, tokens: float, max_wait: float) -> Reservation | None:
        """Take a request and tokens of the shared rates; None: the store cannot be asked."""
        replicas, now, owed = self._replicas, trio.current_time(), self._owed
        settling = self._is_alone and (self._settled_at is None or now < self._settled_at)
        longest = -1.0 if settling else max_wait
        reservation = await replicas.ask(
            lambda: replicas.store.reserve(self._name, self._rates, tokens, longest, owed=owed)
        )
        if reservation is None:
            self._be_alone(now)
            return None
        self._owed = (self._owed[0] - owed[0], self._owed[1] - owed[1])
        replicas.known = max(1, reservation.replicas)
        self._left, self._left_at = reservation.left, now
        if settling:
            self._settled_at = now + _SETTLING if self._settled_at is None else self._settled_at
            return None
        if self._is_alone:
            self._is_alone, self._settled_at = False, None
            self._limiter.share(1)
        return reservation

    def take_alone(self, tokens: float) -> float:
        """Note a call for which nobody could be asked: it is owed. Returns a time before all others."""
        self._owed = (self._owed[0] + 1.0, self._owed[1] + tokens)
        return 0.0

    def _be_alone(self, now: float) -> None:
        """Keep to this process's part of the rates, and of what was there for all when the store worked."""
        self._settled_at = None
        if self._is_alone:
            return
        self._is_alone = True
        rates = self._rates.requests_per_minute or 0.0, self._rates.tokens_per_minute or 0.0
        minutes = (now - self._left_at) / 60
        requests, tokens = (
            max(0.0, left + minutes * rate) for left, rate in zip(self._left, rates, strict=True)
        )
        self._limiter.share(self._replicas.known, (requests, tokens))

    def settle(self, reserved_at: float, *, requests: float, tokens: float) -> None:
        """Correct what was taken."""
        if requests or tokens:
            self._replicas.store.settle(
                self._name, self._rates, reserved_at, requests=requests, tokens=tokens
            )

    # --- pauses and circuits -------------------------------------------------------------------------

    def paused(self, seconds: float) -> None:
        """Tell the others that the provider wants no call for so long."""
        self._tell(ModelNews(model=self._name, kind="paused", seconds=min(seconds, LONGEST_PAUSE)))

    def _circuit_changed(self, open_for: float | None) -> None:
        if open_for is None:
            self._tell(ModelNews(model=self._name, kind="closed"))
        else:
            self._tell(ModelNews(model=self._name, kind="opened", seconds=open_for))

    def _tell(self, news: ModelNews) -> None:
        self._replicas.store.tell(news)

    def _hear(self, news: ModelNews) -> None:
        if news.kind == "paused":
            self._limiter.pause(news.seconds)
        elif news.kind == "opened":
            self._breaker.opened_elsewhere(news.seconds)
        else:
            self._breaker.closed_elsewhere()

    # --- calls ---------------------------------------------------------------------------------------

    async def lease(self, key: CacheKey, call: SharedCall) -> Lease | Completion | None:
        """Return the lease of a call, or the answer that another process has got meanwhile.

        None: the call is to be made without a lease. The wait is a part of the shared call: it ends when the
        last waiter leaves.

        Raises:
            Abandoned: no request waits for the answer any more.
        """
        if not self._replicas.single_flight:
            return None
        found: Lease | Completion | None = None
        with call.scope():
            found = await self._lease(key)
        try:
            call.check()
        except BaseException:
            if isinstance(found, Lease):
                found.finish(None)
            raise
        return found

    async def _lease(self, key: CacheKey) -> Lease | Completion | None:
        replicas, store = self._replicas, self._replicas.store
        name = blake2b(self._name.encode("utf-8", "surrogatepass") + b"\0" + key, digest_size=16).digest()
        for _ in range(_TRIES):
            leased = await replicas.ask(lambda: store.begin(name))
            if leased:
                return Lease(store, name)
            if leased is None:
                return None
            answer = await replicas.ask(lambda: store.wait(name), bounded=False)
            if answer is not None:
                return answer
        return None


class Lease:
    """The right to make a call that no other process makes."""

    __slots__ = ("_key", "_store")

    def __init__(self, store: SharedModels, key: bytes) -> None:
        self._store = store
        self._key = key

    def finish(self, answer: Completion | None) -> None:
        """Give the right back, and leave the answer for those that wait; None: they have to ask."""
        self._store.finish(self._key, answer if answer is not None and is_whole(answer) else None)
