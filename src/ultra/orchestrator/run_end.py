"""The beginning and the end of a run, as logs, counters and observers are told of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ultra._support.log import LogScope, get_logger, log_scope
from ultra.bridge.caller import Caller
from ultra.errors import text_of
from ultra.messages.observers import RunOutcome, RunStart

if TYPE_CHECKING:
    from ultra._support.log import Level
    from ultra.actors.coordinator.messages import Execute, LocalRun
    from ultra.messages.observers import ObserverGroup, RunEnded
    from ultra.messages.results import OrchestrationResult
    from ultra.orchestrator.run_metrics import RunMetrics

__all__ = ["RunEnd", "RunWatch"]

log = get_logger("ultra.run")


class RunWatch:
    """Who is told of the runs of one orchestrator: its counters, and the observers that it was given."""

    __slots__ = ("metrics", "observers")

    def __init__(self, metrics: RunMetrics, observers: ObserverGroup) -> None:
        self.metrics = metrics
        self.observers = observers


class RunEnd:
    """Tells of the beginning of one run when it is made, and of its end: one method is called, once.

    It is told where the run is waited for: the coordinator may crash, hang, or never get the message.

    Attributes:
        local: the run, with the context in which the observers want it.
    """

    __slots__ = ("_message", "_tell", "_watch", "local")

    def __init__(self, message: Execute, local: LocalRun, watch: RunWatch) -> None:
        self._message = message
        self._watch = watch
        self._tell: RunEnded | None = None
        self.local = local
        watch.metrics.started()
        if watch.observers and local.caller is not None:
            context = local.caller.context.copy()
            self._tell = watch.observers.run_started(_start_of(message), context)
            self.local = local._replace(caller=Caller(context, local.caller.runner))

    def answered(self, result: OrchestrationResult) -> None:
        """Tell of a run that has a result."""
        outcome = RunOutcome(status=result.status, seconds=self._seconds(), result=result)
        level: Level = "info" if result.status == "success" else "warning"
        self._write(level, outcome, failures=len(result.failures))

    def failed(self, error: Exception) -> None:
        """Tell of a run that failed."""
        kind = type(error).__name__
        outcome = RunOutcome(status="failed", seconds=self._seconds(), error=kind)
        self._write("error", outcome, kind=kind, error=text_of(error))

    def cancelled(self) -> None:
        """Tell of a run for which nobody waited any more."""
        self._write("info", RunOutcome(status="cancelled", seconds=self._seconds()))

    def _seconds(self) -> float:
        return trio.current_time() - self.local.started

    def _write(self, level: Level, outcome: RunOutcome, **fields: object) -> None:
        local, spending, strategy = self.local, self.local.spending, self._message.strategy.name
        tokens, cost = (0, None) if spending is None else spending.read()
        self._watch.metrics.ended(strategy, self._message.options, outcome, tokens, cost)
        context = None if local.caller is None else local.caller.context
        with log_scope(LogScope({"run_id": self._message.run_id}, context)):
            log.log(
                level,
                "run ended",
                status=outcome.status,
                strategy=strategy,
                seconds=round(outcome.seconds, 3),
                tokens=tokens,
                cost=cost,
                **fields,
            )
        if self._tell is not None:
            self._tell(outcome)
        if spending is not None:
            spending.forget()


def _start_of(message: Execute) -> RunStart:
    return RunStart(
        run_id=message.run_id,
        name=message.options.name,
        strategy=message.strategy.name,
        models=message.models,
        request=message.request,
    )
