"""The one line of the log that ends a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import trio

from ultra._support.log import LogScope, get_logger, log_scope
from ultra.errors import text_of

if TYPE_CHECKING:
    from ultra._support.log import Level
    from ultra.actors.coordinator.messages import Execute, LocalRun
    from ultra.messages.results import OrchestrationResult, Status

__all__ = ["RunEnd"]

log = get_logger("ultra.run")


class RunEnd:
    """Writes the line of one run: status, seconds, tokens, dollars. One method of it is called, once.

    It is written where the run is waited for: the coordinator may crash, hang, or never get the message.
    """

    __slots__ = ("_local", "_message")

    def __init__(self, message: Execute, local: LocalRun) -> None:
        self._message = message
        self._local = local

    def answered(self, result: OrchestrationResult) -> None:
        """Tell of a run that has a result."""
        level: Level = "info" if result.status == "success" else "warning"
        self._write(level, result.status, failures=len(result.failures))

    def failed(self, error: Exception) -> None:
        """Tell of a run that failed."""
        self._write("error", "failed", kind=type(error).__name__, error=text_of(error))

    def cancelled(self) -> None:
        """Tell of a run for which nobody waited any more."""
        self._write("info", "cancelled")

    def _write(self, level: Level, status: Status | Literal["failed", "cancelled"], **fields: object) -> None:
        local, spending = self._local, self._local.spending
        tokens, cost = (0, None) if spending is None else spending.read()
        context = None if local.caller is None else local.caller.context
        with log_scope(LogScope({"run_id": self._message.run_id}, context)):
            log.log(
                level,
                "run ended",
                status=status,
                strategy=self._message.strategy.name,
                seconds=round(trio.current_time() - local.started, 3),
                tokens=tokens,
                cost=cost,
                **fields,
            )
        if spending is not None:
            spending.forget()
