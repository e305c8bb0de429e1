"""The health of a model, judged by its actor, its circuit breaker and its latest requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from msgspec import Struct

from ultra._support.mapping import Record
from ultra.actors.runtime.status import ActorState

if TYPE_CHECKING:
    from ultra.actors.model.registered import RegisteredModel
    from ultra.actors.runtime.status import ActorSnapshot

__all__ = ["HealthStatus", "ModelHealth", "model_health"]

HealthStatus: TypeAlias = Literal["up", "degraded", "down"]
"""Whether a model can be asked: up, yes; degraded, perhaps; down, no."""


_LASTING: Final = frozenset({"auth", "quota"})
_TOO_MANY: Final = 0.2


class ModelHealth(Record, Struct, frozen=True, kw_only=True):
    """The health of one model. `reasons` says in words why it is not up."""

    status: HealthStatus
    reasons: tuple[str, ...] = ()


def model_health(model: RegisteredModel, actor: ActorSnapshot) -> ModelHealth:
    """Return the health of a model, by what is known now; nothing is sent to it. On trio.

    It is down while its actor is down, while its circuit is open, and after a request failed because of a
    wrong key or an exhausted quota. It is degraded while its actor restarts, while its circuit is
    half-open, while a Retry-After of the provider delays calls, while threads of given up calls still run,
    after a request failed, and while a fifth or more of its latest requests failed.
    """
    down: list[str] = []
    degraded: list[str] = []
    _judge_actor(actor, down, degraded)
    _judge_circuit(model, down, degraded)
    _judge_requests(model, down, degraded)
    status: HealthStatus = "down" if down else "degraded" if degraded else "up"
    return ModelHealth(status=status, reasons=(*down, *degraded))


def _judge_actor(actor: ActorSnapshot, down: list[str], degraded: list[str]) -> None:
    why = f": {actor.last_error}" if actor.last_error is not None else ""
    if actor.state is ActorState.RESTARTING:
        degraded.append(f"its actor crashed and is being restarted{why}")
    elif actor.state is ActorState.DOWN:
        down.append(f"its actor crashed too often and is down until revive_model() is called{why}")
    elif actor.state not in {ActorState.RUNNING, ActorState.STARTING}:
        down.append(f"its actor is {actor.state.value}{why}")


def _judge_circuit(model: RegisteredModel, down: list[str], degraded: list[str]) -> None:
    circuit = model.breaker.statistics()
    if circuit.state == "open":
        down.append(f"its circuit is open for another {circuit.open_for:.1f} s")
    elif circuit.state == "half_open":
        degraded.append("its circuit is half-open: one call may try whether it works again")
    limits = model.limiter.statistics()
    if limits.paused_for > 0:
        degraded.append(f"the provider asked for a pause of another {limits.paused_for:.1f} s")
    if limits.abandoned:
        degraded.append(
            f"{limits.abandoned} calls of its synchronous client were given up, and their threads still run"
        )


def _judge_requests(model: RegisteredModel, down: list[str], degraded: list[str]) -> None:
    latest = model.metrics.latest
    newest = latest[-1] if latest else None
    failed = sum(error is not None for error in latest)
    if newest is not None and newest.kind in _LASTING:
        down.append(f"its latest request failed: {newest}")
    elif newest is not None:
        degraded.append(f"its latest request failed: {newest}")
    elif failed >= len(latest) * _TOO_MANY and failed:
        degraded.append(f"{failed} of its latest {len(latest)} requests failed")
