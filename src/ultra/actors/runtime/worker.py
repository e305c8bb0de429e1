"""A place for one handler of an actor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trio.lowlevel import Abort

from ultra.actors.runtime.crash import CrashBarrier

if TYPE_CHECKING:
    from types import TracebackType

    from trio.lowlevel import Task

    from ultra.actors.runtime.message import Envelope
    from ultra.actors.runtime.scope import SectionedScope

__all__ = ["Worker"]


class Worker(CrashBarrier):
    """The task of one handler, the message that it has in hand, and, in the end, what crashed it.

    `idle` are the tasks of all the incarnation's workers that wait for messages.
    """

    __slots__ = ("envelope", "idle", "scope", "task")

    def __init__(self, task: Task, idle: list[Task], scope: SectionedScope | None) -> None:
        super().__init__()
        self.task = task
        self.idle = idle
        self.envelope: Envelope | None = None
        self.scope = scope

    def leave(self, _raise_cancel: object) -> Abort:
        """Trio's abort function: the worker was cancelled while it was idle."""
        self.idle.remove(self.task)
        return Abort.SUCCEEDED

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if self.task in self.idle:  # a KeyboardInterrupt came in the moment before it was parked
            self.idle.remove(self.task)
        return super().__exit__(kind, error, traceback)
