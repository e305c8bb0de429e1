"""A token bucket without a timer: an allowance that refills continuously.

It keeps no level but the moment at which the bucket would have been empty, as the generic cell rate
algorithm does (ITU-T I.371). So it needs no task, and rounding errors do not add up.
"""

from __future__ import annotations

import math

__all__ = ["Grant", "TokenBucket"]


class Grant:
    """Units that were taken for one purpose, and may turn out to be too many or too few."""

    __slots__ = ("room", "units")

    def __init__(self, units: float) -> None:
        self.units = units
        # How much fuller the bucket could have been at any time since. What refills a full bucket is lost;
        # if less had been taken, more would have been lost.
        self.room = math.inf


class TokenBucket:
    """An allowance of `per_minute` units that holds those of one minute, but at least `floor`; full at first.

    Times are seconds on any one clock. If every caller waits until its units are available, then in w
    minutes no more is used than the capacity and w times the rate. This holds for the units at which grants
    were settled, too, where these are not more than was taken. ::

        bucket = TokenBucket(per_minute=60)
        await trio.sleep(max(0.0, bucket.ready_in(5, now)))
        grant = bucket.take(5, trio.current_time())
    """

    def __init__(self, per_minute: float, floor: float = 0) -> None:
        self._floor = floor
        self._empty_at = -math.inf  # now minus this is the time in which what is available refilled
        self._open: dict[Grant, None] = {}
        self._set_rate(per_minute)

    def available(self, now: float) -> float:
        """Return the units that can be taken; below 0 if grants were settled at more than was taken.

        No lower than minus the capacity: what one use is said to have cost delays others by a minute at most.
        """
        return min(self.capacity, (now - self._empty_at) / self._interval)

    def ready_in(self, units: float, now: float) -> float:
        """Return the seconds until so many units are available, at most the capacity; 0 or less: they are."""
        return self._refilled_from(now) + units * self._interval - now

    def take(self, units: float, now: float) -> Grant:
        """Take units, even if that leaves less than 0 available. The caller closes the grant in the end."""
        self._spend(units, now)
        grant = Grant(units)
        self._open[grant] = None
        return grant

    def settle(self, grant: Grant, units: float, now: float) -> None:
        """Correct the units of a grant to what was used.

        What is missing is taken. What is left over returns while the grant is open: as much as would be
        available now if only the used units had been taken in the first place.
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
        """End the grant; nothing of it can be given back afterwards. May be called again."""
        self._open.pop(grant, None)

    def learn(self, per_minute: float | None, remaining: float | None, now: float) -> None:
        """Set the rate, if it is given, and let no more than `remaining` units be available."""
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
        room = self._headroom(now)  # the bucket is fullest just before units are taken
        for grant in self._open:
            grant.room = min(grant.room, room)
        spent = self._refilled_from(now) + units * self._interval
        # A provider that counts wrong must not stop the model for weeks: the debt is at most one filling.
        self._empty_at = max(self._empty_at, min(spent, now + self.capacity * self._interval))
