"""Waiting for the next events of a run that this process writes."""

from __future__ import annotations

from typing import Final

import trio
from trio.lowlevel import ParkingLot, checkpoint

__all__ = ["Changes"]

_MOST_REMEMBERED: Final = 4096


class Changes:
    """Wakes the tasks that wait for events. Of the newest 4096 runs it knows how far they are."""

    def __init__(self) -> None:
        self._waiting: dict[str, ParkingLot] = {}
        self._latest: dict[str, int] = {}

    def written(self, run_id: str, seq: int) -> None:
        """Tell that the event `seq` of a run can be read now."""
        self._latest.pop(run_id, None)
        self._latest[run_id] = seq
        if len(self._latest) > _MOST_REMEMBERED:
            del self._latest[next(iter(self._latest))]
        self.wake(run_id)

    def wake(self, run_id: str) -> None:
        """Wake all who wait for this run, since something else has changed: it may be gone."""
        lot = self._waiting.get(run_id)
        if lot is not None:
            lot.unpark_all()

    async def wait(self, run_id: str, after: int, seconds: float) -> None:
        """Wait for an event whose `seq` is above `after`, at most so many seconds. A checkpoint."""
        if self._latest.get(run_id, -1) > after:
            await checkpoint()
            return
        lot = self._waiting.setdefault(run_id, ParkingLot())
        try:
            with trio.move_on_after(seconds):
                await lot.park()
        finally:
            if not lot and self._waiting.get(run_id) is lot:
                del self._waiting[run_id]
