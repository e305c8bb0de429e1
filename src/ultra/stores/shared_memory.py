"""What replicas share of their models, in memory: for tests, and for several orchestrators of one process."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import trio
from trio.lowlevel import checkpoint

from ultra._support.clock import ContinuousClock
from ultra.stores.shared_contract import CALL_SECONDS, ModelRates, Reservation, buckets_of
from ultra.stores.shared_outbox import Listeners

if TYPE_CHECKING:
    from collections.abc import Callable

    from ultra.messages import Completion
    from ultra.stores.contracts import TaskStatus
    from ultra.stores.shared_contract import FlightKey, Listener, ModelNews

__all__ = ["MemorySharedModels"]

_MINUTE = 60.0


class _Bucket:
    """A token bucket that may be below zero, and when it was full last."""

    def __init__(self, most: float, now: float) -> None:
        self.most = self.level = self.per_minute = most
        self.at = self.full_at = now

    def refill(self, most: float, per_minute: float, now: float) -> None:
        self.level += most - self.most  # where the limit was changed
        self.most, self.per_minute = most, per_minute
        self.level = min(self.most, self.level + (now - self.at) * per_minute / _MINUTE)
        self.at = now
        if self.level >= self.most:
            self.full_at = now

    def wait(self, units: float) -> float:
        return max(0.0, (units - self.level) * _MINUTE / self.per_minute)


class _Flight:
    """A call that a process makes, or has made."""

    def __init__(self, holder: MemorySharedModels, until: float) -> None:
        self.holder = holder
        self.until = until
        self.over = trio.Event()
        self.answer: Completion | None = None


class _State:
    """What all share."""

    def __init__(self) -> None:
        self.now = ContinuousClock()
        self.buckets: dict[tuple[str, str], _Bucket] = {}
        self.news: dict[tuple[str, str], tuple[ModelNews, float]] = {}
        self.flights: dict[FlightKey, _Flight] = {}
        self.views: dict[MemorySharedModels, None] = {}
        self.seen: dict[MemorySharedModels, float] = {}


class MemorySharedModels:
    """A view of one process, or of one orchestrator; see `SharedModels`. Each needs its own.

    Args:
        beside: another view, with which this one shares everything; None: this is the first one.
    """

    def __init__(self, beside: MemorySharedModels | None = None) -> None:
        self._state: _State = _State() if beside is None else beside._state  # noqa: SLF001 - of this class
        self._listeners = Listeners()

    async def reserve(
        self,
        model: str,
        rates: ModelRates,
        tokens: float,
        max_wait: float,
        *,
        owed: tuple[float, float] = (0.0, 0.0),
    ) -> Reservation:
        """Take from the rates of a model; see `SharedModels.reserve`."""
        await checkpoint()
        state, now = self._state, self._state.now()
        state.seen[self] = now
        left = [inf, inf]
        for bucket, is_requests in self._buckets(model, rates, now):
            bucket.level = max(-bucket.most, bucket.level - owed[not is_requests])
        wanted = [
            (bucket, min(1.0 if is_requests else tokens, bucket.most))
            for bucket, is_requests in self._buckets(model, rates, now)
        ]
        wait = max((bucket.wait(units) for bucket, units in wanted), default=0.0)
        if wait <= max_wait:
            for bucket, units in wanted:
                bucket.level -= units
        for bucket, is_requests in self._buckets(model, rates, now):
            left[not is_requests] = bucket.level
        replicas = sum(now - seen < _MINUTE for seen in state.seen.values())
        return Reservation(
            wait=wait, taken=wait <= max_wait, at=now, left=(left[0], left[1]), replicas=replicas
        )

    def settle(
        self, model: str, rates: ModelRates, at: float, *, requests: float = 0.0, tokens: float = 0.0
    ) -> None:
        """Correct what was taken; see `SharedModels.settle`."""
        for bucket, is_requests in self._buckets(model, rates, self._state.now()):
            units = requests if is_requests else tokens
            if units > 0 or bucket.full_at <= at:
                bucket.level = max(-bucket.most, min(bucket.most, bucket.level - units))

    def tell(self, news: ModelNews) -> None:
        """Tell all other views; see `SharedModels.tell`."""
        kind = "paused" if news.kind == "paused" else "circuit"
        self._state.news[news.model, kind] = news, self._state.now()
        for view in tuple(self._state.views):
            if view is not self:
                view._listeners.tell(news)  # noqa: SLF001 - of this class

    def listen(self, model: str, listener: Listener) -> Callable[[], None]:
        """Listen to what others tell; see `SharedModels.listen`."""
        return self._listeners.add(model, listener)

    async def begin(self, key: FlightKey) -> bool:
        """Return whether this view may make a call; see `SharedModels.begin`."""
        await checkpoint()
        if self not in self._state.views:
            return True
        flight = self._state.flights.get(key)
        if flight is not None and not flight.over.is_set() and self._holds(flight):
            return flight.holder is self
        self._state.flights[key] = _Flight(self, self._state.now() + CALL_SECONDS)
        return True

    def finish(self, key: FlightKey, answer: Completion | None) -> None:
        """End a call; see `SharedModels.finish`."""
        flight = self._state.flights.get(key)
        if flight is not None and flight.holder is self:
            del self._state.flights[key]
            flight.answer = answer
            flight.over.set()

    async def wait(self, key: FlightKey) -> Completion | None:
        """Wait for the end of a call; see `SharedModels.wait`."""
        flight = self._state.flights.get(key)
        while flight is not None and not flight.over.is_set() and self._holds(flight):
            with trio.move_on_after(CALL_SECONDS / 4):
                await flight.over.wait()
        await checkpoint()
        return None if flight is None else flight.answer

    async def keep_connected(self, *, task_status: TaskStatus | None = None) -> None:
        """Hear what others tell, until cancelled; see `SharedModels.keep_connected`."""
        state = self._state
        state.views[self] = None
        for news, told in tuple(state.news.values()):
            left = news.seconds - (state.now() - told)
            if left > 0:
                self._listeners.tell(type(news)(model=news.model, kind=news.kind, seconds=left))
        try:
            if task_status is not None:
                task_status.started()
            await trio.sleep_forever()
        finally:
            del state.views[self]
            for flight in state.flights.values():
                if flight.holder is self:
                    flight.until = state.now() + CALL_SECONDS

    async def aclose(self) -> None:
        """Do nothing. A checkpoint."""
        await checkpoint()

    def _holds(self, flight: _Flight) -> bool:
        return flight.holder in self._state.views or flight.until > self._state.now()

    def _buckets(self, model: str, rates: ModelRates, now: float) -> list[tuple[_Bucket, bool]]:
        """Return the buckets as they are now, and for each whether it is that of requests."""
        found = []
        for kind, most, per_minute in buckets_of(rates):
            bucket = self._state.buckets.setdefault((model, kind), _Bucket(most, now))
            bucket.refill(most, per_minute, now)
            found.append((bucket, kind == "requests"))
        return found
