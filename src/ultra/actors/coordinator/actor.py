"""The coordinator actor: takes runs through their strategies by messaging model actors in weight order."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ultra._support.log import LogScope, log_scope
from ultra.actors.coordinator.messages import Execute
from ultra.actors.coordinator.run import Run
from ultra.actors.runtime.actor import Actor, ActorOptions
from ultra.actors.runtime.message import Failure
from ultra.errors import BadCall, UltraError

if TYPE_CHECKING:
    from ultra.actors.coordinator.messages import LocalRuns
    from ultra.messages import OrchestrationResult

__all__ = ["Coordinator"]


class Coordinator(Actor):
    """Carries out many runs at once; each is a handler of its own. `runs` has what stays beside them."""

    options: ClassVar[ActorOptions] = ActorOptions(concurrency=4096, capacity=65_536, cancel_abandoned=True)

    def __init__(self, runs: LocalRuns) -> None:
        self._runs = runs

    async def receive(self, message: object) -> OrchestrationResult | Failure:
        """Carry out an `Execute`."""
        if not isinstance(message, Execute):
            raise TypeError(f"the coordinator takes Execute messages, not {type(message).__name__}")
        local = self._runs.get(message.run_id)
        if local is None:
            return Failure(BadCall(f"run {message.run_id!r} is not known here: nobody waits for it any more"))
        context = None if local.caller is None else local.caller.context
        with log_scope(LogScope({"run_id": message.run_id}, context)):
            try:
                return await Run(message, local).execute()
            except UltraError as error:
                return Failure(error)
