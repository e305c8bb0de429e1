"""Supervision for actors: who is restarted when an actor crashes, how often, and what happens then."""

from ultra.errors import RestartLimitExceeded
from ultra.supervisor.lifecycle import LifecycleEvent
from ultra.supervisor.snapshot import SupervisorSnapshot
from ultra.supervisor.spec import Backoff, OnExcess, Restart, RestartIntensity, Strategy
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
    "Strategy",
    "Supervisor",
    "SupervisorSnapshot",
]
