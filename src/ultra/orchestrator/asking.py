"""Asking for a run, or, apart from any run, a single model, registered or not."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import trio
from msgspec.structs import replace

from ultra._support.randomness import new_id
from ultra.actors.coordinator.actor import Execute
from ultra.actors.coordinator.run import until
from ultra.errors import ActorStopped, DeadlineExceeded

if TYPE_CHECKING:
    from ultra.actors.model.actor import Generate, RegisteredModel
    from ultra.messages.results import ModelResponse, OrchestrationResult
    from ultra.orchestrator.lifespan import Lifespan
    from ultra.orchestrator.streams import PlanMaker
    from ultra.orchestrator.unregistered import Strangers

__all__ = ["ask", "ask_stranger", "carry_out"]


async def carry_out(lifespan: Lifespan, make_plan: PlanMaker) -> OrchestrationResult:
    """Have a run carried out, on any loop, without telling of its events.

    Raises:
        DeadlineExceeded: the run's time was over, and it did not end.
    """

    async def ask_coordinator() -> OrchestrationResult:
        async with lifespan.lend() as tree:
            plan = make_plan(tree, new_id(), None)
            with until(plan.given_up_at):
                return await tree.coordinator.ask(Execute(plan))
            raise plan.unheard_of()

    return await lifespan.trio_run.run(ask_coordinator)


async def ask(lifespan: Lifespan, model: RegisteredModel, request: Generate, limit: float) -> ModelResponse:
    """Ask `model`, on any loop, for at most `limit` seconds.

    Raises:
        AllAttemptsFailed: every attempt failed.
        DeadlineExceeded: `limit` was over first.
        ModelUnregistered: the model was unregistered, and not let finish.
        OrchestratorClosed: the orchestrator was closed.
    """
    return await lifespan.trio_run.run(lambda: _ask(lifespan, model, request, limit))


async def ask_stranger(
    lifespan: Lifespan, strangers: Strangers, client: object, request: Generate, limit: float
) -> ModelResponse:
    """As `ask`, for a client that was never registered. Raises `BadCall` if it is unusable."""
    stranger = strangers.admit(client)  # here, on the loop that an async client then belongs to
    try:
        return await ask(lifespan, stranger.model, request, limit)
    finally:
        # Also here: what is cancelled on its way to the actors' loop never gets there.
        forgotten = strangers.dismiss(stranger)
        tree = lifespan.tree
        if forgotten and tree is not None:
            await lifespan.trio_run.run(lambda: tree.forget(forgotten))


async def _ask(lifespan: Lifespan, model: RegisteredModel, request: Generate, limit: float) -> ModelResponse:
    async with lifespan.lend() as tree:
        ref = tree.target(model).ref
        try:
            if limit == inf:
                return await ref.ask(request)
            with trio.move_on_after(limit) as scope:
                return await ref.ask(replace(request, deadline=scope.deadline))
        except ActorStopped as error:
            raise model.explain(error)  # noqa: B904 - the very error, or one that has it as its cause
    raise DeadlineExceeded(f"Model {model.name!r} did not answer within {limit:g} s")
