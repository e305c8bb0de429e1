"""The pauses that a provider asks for, and how calls start again after one."""

from __future__ import annotations

import math
from typing import Final

__all__ = ["LONGEST_PAUSE", "Pauses"]

LONGEST_PAUSE: Final = 3600.0
"""Seconds that one pause lasts at most, whatever a server says; then a call finds out."""

_SPREAD: Final = 0.25
"""Over this share of a pause, after its end, the calls that waited start one after the other, so that a
provider that was short of room does not get all of them at one instant."""

_LONGEST_SPREAD: Final = 5.0
_LONGEST_GAP: Final = 0.25
"""Seconds between two of them at most, where few have waited."""

_NOTICEABLE: Final = 0.25
"""Seconds by which a pause has to become longer for anybody to be told."""


class Pauses:
    """When the calls of one model may start again. Times are seconds on any one clock.

    After a pause, the calls that waited start one after the other, within a quarter of its length, or 5 s.
    """

    __slots__ = ("_spread_until", "_started_at", "until")

    def __init__(self) -> None:
        self.until = -math.inf
        """The end of the pause: in the past, if there is none now."""
        self._spread_until = -math.inf
        self._started_at = -math.inf  # the latest call

    @property
    def spreads(self) -> bool:
        """Whether calls are spread, or will be after the pause."""
        return self._spread_until > -math.inf

    def begin(self, seconds: float, now: float) -> bool:
        """Begin a pause of so many seconds, an hour at most; one that lasts longer goes on.

        Returns whether calls now wait for noticeably longer than before.
        """
        is_longer = now + seconds - self.until > _NOTICEABLE
        seconds = min(seconds, LONGEST_PAUSE)
        self.until = max(self.until, now + seconds)
        spread = self.until + min(seconds * _SPREAD, _LONGEST_SPREAD)
        self._spread_until = max(self._spread_until, spread)
        return is_longer

    def started(self, now: float) -> None:
        """Take note that a call starts."""
        self._started_at = now

    def delay_after(self, waiting: int, now: float) -> float:
        """Return the seconds until a call may follow the one before it, where a pause has just ended.

        `waiting` calls, this one included, wait for their turn.
        """
        if self._spread_until == -math.inf:
            return -math.inf
        if now >= self._spread_until:
            self._spread_until = -math.inf
            return -math.inf
        before = self._started_at
        if before < self.until:  # the first call after the pause
            return -math.inf
        gap = min((self._spread_until - before) / (waiting + 1), _LONGEST_GAP)
        return before + gap - now
