"""`GET /v1/status`: models, actors and the service at this moment, for those who run it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from msgspec import to_builtins
from msgspec.structs import asdict

from ultra.errors import OrchestratorClosed
from ultra.service.http import json_reply
from ultra.service.problems import Problem
from ultra.supervisor.snapshot import SupervisorSnapshot

if TYPE_CHECKING:
    from ultra.actors.runtime.status import ActorSnapshot
    from ultra.orchestrator.measurements import ModelMeasurements
    from ultra.service.access import Caller
    from ultra.service.core import Service
    from ultra.service.http import Reply

__all__ = ["show_status"]

_NEWEST = 64


async def show_status(service: Service, caller: Caller) -> Reply:
    """Return the tree of actors, health, limits and metrics of each model, and what the caller has left.

    No text of an error is in it. A caller whose key is for some models only sees these, and no tree. `limits`
    is null where the limits of keys cannot be read.

    Raises:
        Problem: the service has not started, or has ended.
    """
    try:
        limits = await service.quotas.left(caller)
    except Problem:
        limits = None
    orchestrator = service.orchestrator
    try:
        measured, tree = orchestrator.get_measurements(), orchestrator.tree()
    except OrchestratorClosed:
        raise Problem(503, "overloaded_error", "starting", "the service is starting or ending") from None
    models = {name: _model(model) for name, model in measured.models.items() if caller.may_ask(name)}
    return json_reply(
        {
            "started_at": service.started_at,
            "now": time.time(),
            "draining": service.is_draining,
            "running": service.running_requests,
            "keeps_runs": orchestrator.has_journal,
            "key": caller.name or None,
            "limits": to_builtins(limits),
            "models": models,
            "tree": _node(tree) if caller.key is None or caller.key.models is None else None,
        }
    )


def _model(measured: ModelMeasurements) -> dict[str, Any]:
    told = asdict(measured.metrics)
    del told["quality_scores"], told["times_to_first_token"]
    told["response_times"] = told["response_times"][-_NEWEST:]
    if measured.health is not None:
        told |= {"status": measured.health.status, "reasons": len(measured.health.reasons)}
    if measured.circuit is not None:
        told["circuit"] = measured.circuit.state
    if measured.limits is not None:
        told["limits"] = asdict(measured.limits)
    return told


def _node(snapshot: ActorSnapshot | SupervisorSnapshot) -> dict[str, Any]:
    if isinstance(snapshot, SupervisorSnapshot):
        return {
            "kind": "supervisor",
            "name": snapshot.name,
            "path": snapshot.path,
            "state": snapshot.state.value,
            "strategy": snapshot.strategy,
            "restarts": snapshot.restarts,
            "children": [_node(child) for child in snapshot.children],
        }
    told = asdict(snapshot)
    told["crashed"] = told.pop("last_error") is not None  # an exception's text stays in the log
    return {"kind": "actor", **told, "state": snapshot.state.value}
