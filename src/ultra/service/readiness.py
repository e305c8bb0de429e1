"""`GET /readyz`: whether a request can be answered now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ultra.errors import BadCall, OrchestratorClosed
from ultra.messages.options import RunOptions
from ultra.service.http import json_reply

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ultra.orchestrator.health import ModelHealth
    from ultra.service.core import Service
    from ultra.service.http import Reply
    from ultra.service.targets import Target

__all__ = ["readiness"]


def readiness(service: Service) -> Reply:
    """Return 200 if every ensemble can reach its quorum, else 503; a service without ensembles needs a model.

    The reasons for which a model is down stay here: they may have a provider's words.
    """
    if service.is_draining:
        return json_reply({"status": "draining"}, 503, {"retry-after": "5"})
    try:
        health = service.orchestrator.health()
    except OrchestratorClosed:
        return json_reply({"status": "starting"}, 503, {"retry-after": "1"})
    ensembles = {
        name: _is_possible(service, service.all_targets.get(name), health) for name in service.ensembles
    }
    usable = any(state.status != "down" for state in health.values())
    ready = all(ensembles.values()) if ensembles else usable
    told: dict[str, Any] = {
        "status": "ready" if ready else "not ready",
        "models": {name: state.status for name, state in health.items()},
        "ensembles": ensembles,
    }
    return json_reply(told, 200 if ready else 503, {} if ready else {"retry-after": "5"})


def _is_possible(service: Service, target: Target, health: Mapping[str, ModelHealth]) -> bool:
    panel = service.all_targets.panel(target)
    able = sum(health[name].status != "down" for name in panel if name in health)
    try:
        needed = RunOptions(quorum=target.arguments.get("quorum", service.quorum)).needed(len(panel))
    except BadCall:
        return False
    return able >= needed
