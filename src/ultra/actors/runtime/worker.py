"""A place for one handler of an actor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trio.lowlevel import Abort, enable_ki_protection, wait_task_rescheduled

from ultra.actors.runtime.crash import CrashBarrier

if TYPE_CHECKING:
    from trio.lowlevel import Task

    from ultra.actors.runtime.message import Envelope

__all__ = ["Worker"]


class Worker(CrashBarrier):
    """The task of one handler, the message that it has in hand, and, in the end, what crashed it.

    `idle` are the tasks of all the incarnation's workers that wait for messages.
    """

    __slots__ = ("envelope", "idle", "task")

    def __init__(self, task: Task, idle: list[Task]) -> None:
        super().__init__()
        self.task = task
        self.idle = idle
        self.envelope: Envelope | None = None

    # Protected: a KeyboardInterrupt between the two lines would leave an idle worker that nobody may wake.
    @enable_ki_protection
    async def park(self) -> None:
        """Wait among the idle workers until a message has come."""
        self.idle.append(self.task)
        await wait_task_rescheduled(self._leave)

    def _leave(self, _raise_cancel: object) -> Abort:
        self.idle.remove(self.task)
        return Abort.SUCCEEDED
