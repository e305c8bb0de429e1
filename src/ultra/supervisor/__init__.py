"""Supervision of actors: which of them are restarted after a crash, how often, and what happens after that.

Here a crash of one worker restarts all of them, at most three times in five seconds:

    async with ActorSystem() as system:
        intensity = RestartIntensity(3, within=5.0)
        workers = system.supervisor("workers", strategy="one_for_all", intensity=intensity)
        echo = workers.spawn(Echo, name="echo")
"""

from typing import TYPE_CHECKING

from ultra._support.old_names import old_names
from ultra.errors import RestartLimitExceeded
from ultra.supervisor.lifecycle import LifecycleEvent
from ultra.supervisor.snapshot import SupervisorSnapshot
from ultra.supervisor.spec import Backoff, OnExcess, Restart, RestartIntensity, RestartStrategy
from ultra.supervisor.supervisor import Supervisor
from ultra.supervisor.system import ActorSystem

__all__ = [
    "ActorSystem",
    "Backoff",
    "LifecycleEvent",
    "OnExcess",
    "Restart",
    "RestartIntensity",
    "RestartLimitExceeded",
    "RestartStrategy",
    "Supervisor",
    "SupervisorSnapshot",
]

# `ultra.Strategy` is another thing, the way of a run.
if TYPE_CHECKING:
    Strategy = RestartStrategy
else:
    __getattr__ = old_names(__name__, {"Strategy": "RestartStrategy"})
