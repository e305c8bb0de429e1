"""A token bucket without a timer: an allowance that refills continuously.

It counts the way of the generic cell rate algorithm (ITU-T I.371): instead of a level it keeps the
one moment at which it would have been empty, so it needs no task and does not drift.
"""

from __future__ import annotations

import math

__all__ = ["Grant", "TokenBucket"]


class Grant:
    """Units that were taken for one purpose and may turn out to be more, or fewer, than it needed."""

    __slots__ = ("room", "units")

    def __init__(self, units: float) -> None:
        self.units = units
        # How much fuller the bucket could have been at any time since: what refilled while it was
        # full is lost, and would have been lost the more if less had been taken.
        self.room = math.inf


class TokenBucket:
    """An allowance of `per_minute` units that holds a minute's worth, but at least `floor`; full at first.

    Times are seconds on any one clock. Over a window of w minutes no more is used than the capacity
    and w times the rate, if every taker waits until its units are available. That holds for what the
    grants were settled at too, as far as it was not more than was taken.
    """

    def __init__(self, per_minute: float, floor: float = 0) -> None:
        self._floor = floor
        self._empty_at = -math.inf  # now minus this is the time in which what is available refilled
        self._open: dict[Grant, None] = {}
        self._set_rate(per_minute)

    def available(self, now: float) -> float:
        """Units that can be taken; below 0 after grants that were settled at more than was taken."""
        return min(self.capacity, (now - self._empty_at) / self._interval)

    def ready_in(self, units: float, now: float) -> float:
        """Seconds until so many units are available, 0 or less if they are; at most the capacity comes."""
        return self._refilled_from(now) + units * self._interval - now

    def take(self, units: float, now: float) -> Grant:
        """Take units, into debt if need be. Close the grant when its purpose is done."""
        self._spend(units, now)
        grant = Grant(units)
        self._open[grant] = None
        return grant

    def settle(self, grant: Grant, units: float, now: float) -> None:
        """Say what was really used: the difference is taken too, or comes back while the grant is open.

        What comes back is what would be here now if no more had been taken in the first place.
        """
        surplus, grant.units = grant.units - units, units
        if surplus < 0:
            self._spend(-surplus, now)
        elif grant in self._open:
            back = max(0.0, min(surplus, grant.room, self._headroom(now)))
            self._empty_at = self._refilled_from(now) - back * self._interval
            for other in self._open:
                other.room -= back

    def close(self, grant: Grant) -> None:
        """End the grant; nothing comes back from now on. May be called again."""
        self._open.pop(grant, None)

    def learn(self, per_minute: float | None, remaining: float | None, now: float) -> None:
        """Take over a rate, and believe that no more than `remaining` units are available."""
        left = self.available(now)
        if per_minute is not None:
            self._set_rate(per_minute)
        if remaining is not None:
            left = min(left, remaining)
        self._empty_at = now - min(left, self.capacity) * self._interval

    def _set_rate(self, per_minute: float) -> None:
        self.capacity = max(per_minute, self._floor)
        self._interval = 60 / per_minute  # seconds in which one unit comes back

    def _refilled_from(self, now: float) -> float:
        return max(self._empty_at, now - self.capacity * self._interval)

    def _headroom(self, now: float) -> float:
        return self.capacity - self.available(now)

    def _spend(self, units: float, now: float) -> None:
        room = self._headroom(now)  # the bucket is at its fullest just before something is taken
        for grant in self._open:
            grant.room = min(grant.room, room)
        self._empty_at = self._refilled_from(now) + units * self._interval
