"""Trio's time, continued from one `trio.run` to the next."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from trio.abc import Clock

__all__ = ["Timeline"]


class Timeline:
    """Call it for the time [s] on trio's clock, without a jump between two runs.

    Each run's clock starts from a number of its own, so the times of two runs say nothing about each
    other; yet caches, limits and breakers outlive the run that used them last. While no run uses the
    timeline, it goes on as the last run's clock does.
    """

    def __init__(self) -> None:
        self._clock: Clock | None = None
        self._shift = 0.0

    def __call__(self) -> float:
        """The time now [s]. Raises `RuntimeError` outside of trio."""
        clock = trio.lowlevel.current_clock()
        now = clock.current_time()
        if clock is not self._clock:
            if self._clock is not None:
                self._shift += now - self._clock.current_time()
            self._clock = clock
        return now - self._shift
