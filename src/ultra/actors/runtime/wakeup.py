"""How a task waits that works through what there is to do, and how others make it look."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import trio
from trio.lowlevel import (
    Abort,
    checkpoint,
    current_task,
    enable_ki_protection,
    reschedule,
    wait_task_rescheduled,
)

if TYPE_CHECKING:
    from trio.lowlevel import Task

__all__ = ["Wakeup"]


class Wakeup:
    """For one task that waits. A call of `wake` between two waits makes the second return at once."""

    __slots__ = ("_parked", "_woken")

    def __init__(self) -> None:
        self._parked: Task | None = None
        self._woken = False

    def wake(self) -> None:
        """Let the task go on, now or as soon as it would wait."""
        self._woken = True
        if self._parked is not None:
            task, self._parked = self._parked, None
            reschedule(task)

    @enable_ki_protection
    async def wait(self, deadline: float) -> None:
        """Wait until `wake` is called, or until `deadline`. Always a checkpoint."""
        if self._woken:
            self._woken = False
            await checkpoint()
            return
        self._parked = current_task()
        if deadline == inf:  # as it is most of the time, and a scope takes as long as the wait itself
            await wait_task_rescheduled(self._abort)
        else:
            with trio.CancelScope(deadline=deadline):
                await wait_task_rescheduled(self._abort)
        self._woken = False

    def _abort(self, _raise_cancel: object) -> Abort:
        self._parked = None
        return Abort.SUCCEEDED
