"""Trio's time, continued from one `trio.run` to the next."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from trio.abc import Clock

__all__ = ["ContinuousClock"]


class ContinuousClock:
    """The time in seconds on trio's clock, without a jump from one run to the next.

    Each `trio.run` has a clock that starts from another number, so the times of two runs cannot be
    compared. Caches, rate limits and circuit breakers outlive a run, and have to compare times all the
    same. Between two runs the time goes on as it does on the clock of the first one::

        now = ContinuousClock()
        trio.run(use, now)  # at the end, now() == 8000.0
        time.sleep(2.0)
        trio.run(use, now)  # at the beginning, now() == 8002.0
    """

    def __init__(self) -> None:
        self._clock: Clock | None = None
        self._shift = 0.0

    def __call__(self) -> float:
        """Return the time now [s]; raise `RuntimeError` outside of trio."""
        clock = trio.lowlevel.current_clock()
        now = clock.current_time()
        if clock is not self._clock:
            if self._clock is not None:
                self._shift += now - self._clock.current_time()
            self._clock = clock
        return now - self._shift
