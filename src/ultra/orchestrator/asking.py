"""Asking a single model apart from any run, registered or not."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import trio

from ultra.actors.model.messages import LocalRequest
from ultra.errors import ActorStopped, DeadlineExceeded

if TYPE_CHECKING:
    from ultra.actors.model.messages import Generate
    from ultra.actors.model.registered import RegisteredModel
    from ultra.bridge.caller import Caller
    from ultra.messages import ModelResponse
    from ultra.orchestrator.lifespan import Lifespan
    from ultra.orchestrator.unregistered import UnregisteredClients

__all__ = ["ask", "ask_unregistered"]


async def ask(lifespan: Lifespan, model: RegisteredModel, message: Generate, caller: Caller) -> ModelResponse:
    """Ask `model`, on any loop, for as long as the message says.

    Raises:
        AllAttemptsFailed: every attempt failed.
        DeadlineExceeded: the time was over first.
        ModelUnregistered: the model was unregistered, and not let finish.
        OrchestratorClosed: the orchestrator was closed.
    """
    return await lifespan.trio_run.run(lambda: _ask(lifespan, model, message, caller))


async def ask_unregistered(
    lifespan: Lifespan, clients: UnregisteredClients, client: object, message: Generate, caller: Caller
) -> ModelResponse:
    """As `ask`, for a client that was never registered. Raises `BadCall` if it is unusable."""
    entry = clients.use(client)  # here, on the loop that an async client then belongs to
    try:
        return await ask(lifespan, entry.model, message, caller)
    finally:
        # Also here: what is cancelled on its way to the actors' loop never gets there.
        forgotten = clients.release(entry)
        tree = lifespan.tree
        if forgotten and tree is not None:
            await lifespan.trio_run.run(lambda: tree.forget(forgotten))


async def _ask(
    lifespan: Lifespan, model: RegisteredModel, message: Generate, caller: Caller
) -> ModelResponse:
    limit = inf if message.time_left is None else message.time_left
    async with lifespan.lend() as tree:
        with tree.requests.subscribed(message.id, LocalRequest(None, caller)):
            try:
                with trio.move_on_after(limit):
                    return await tree.target(model).ref.ask(message)
            except ActorStopped as error:
                raise model.explain(error)  # noqa: B904 - the very error, or one that has it as its cause
    raise DeadlineExceeded(f"Model {model.name!r} did not answer within {limit:g} s")
