"""The coordinator actor: sequences the stages of runs by messaging model actors in weight order."""

from __future__ import annotations

from typing import ClassVar

from ultra.actors.coordinator.plan import RunPlan
from ultra.actors.coordinator.run import Run
from ultra.actors.runtime.actor import Actor, ActorOptions
from ultra.actors.runtime.message import Failure, Message
from ultra.errors import UltraError
from ultra.messages.results import OrchestrationResult

__all__ = ["Coordinator", "Execute"]


class Execute(Message[OrchestrationResult], frozen=True):
    """Carry out the plan; the reply is the result. An asker that goes away cancels the run."""

    plan: RunPlan


class Coordinator(Actor):
    """Carries out many runs at once; each is a handler of its own."""

    options: ClassVar[ActorOptions] = ActorOptions(concurrency=4096, capacity=65_536, cancel_abandoned=True)

    async def receive(self, message: object) -> OrchestrationResult | Failure:
        """Carry out an `Execute`."""
        if not isinstance(message, Execute):
            raise TypeError(f"the coordinator takes Execute messages, not {type(message).__name__}")
        try:
            return await Run(message.plan).execute()
        except UltraError as error:
            return Failure(error)
