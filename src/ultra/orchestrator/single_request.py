"""One request to one model, registered or not, outside of any run."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import trio
from msgspec.structs import replace

from ultra._support.log import get_logger
from ultra.actors.coordinator.output_check import OutputCheck
from ultra.actors.model.messages import LocalRequest, seconds_until
from ultra.errors import ActorStopped, AllAttemptsFailed, DeadlineExceeded
from ultra.orchestrator.arguments import check_media, check_options
from ultra.prompts.composing import prompt_budget
from ultra.prompts.history import answer_tokens, fit_request

if TYPE_CHECKING:
    from ultra.actors.model.messages import Generate
    from ultra.actors.model.registered import RegisteredModel
    from ultra.bridge.caller import Caller
    from ultra.messages import ModelResponse
    from ultra.messages.output_types import OutputType
    from ultra.messages.request import ModelRequest
    from ultra.orchestrator.lifespan import Lifespan
    from ultra.orchestrator.unregistered_clients import UnregisteredClients

__all__ = ["ask", "ask_unregistered"]

log = get_logger("ultra.orchestrator")


async def ask(
    lifespan: Lifespan,
    model: RegisteredModel,
    message: Generate,
    caller: Caller,
    output: OutputType | None = None,
) -> ModelResponse:
    """Send `message` to `model`, from any loop, and return the reply, with the `output` that it asks for.

    Raises:
        BadCall: the model takes no option of such a name, or reads no images, and there is one.
        AllAttemptsFailed: all attempts failed.
        DeadlineExceeded: the `time_left` of the message was over first.
        ModelUnregistered: the model was unregistered meanwhile, without `drain`.
        OrchestratorClosed: the orchestrator was closed.
    """
    check_options(message.request.options, (model,))
    check_media(message.request, (model,))
    message = replace(message, request=_fitted(model, message.request))
    return await lifespan.trio_run.run(lambda: _ask(lifespan, model, message, caller, output))


def _fitted(model: RegisteredModel, request: ModelRequest) -> ModelRequest:
    """Return `request` as the model can read it: the oldest turns go where its window does not hold them."""
    window, budget = model.client.context_window, None
    if window is not None:
        budget = prompt_budget(window, answer_tokens(window, request.options.max_tokens))
    client = model.client
    found = fit_request(request, images=client.reads_images, files=client.reads_files, budget=budget)
    if found.left_out:
        log.warning(
            "the oldest messages were left out to fit the context window",
            model=model.name,
            messages=found.left_out,
            tokens=found.tokens,
        )
    return found.request


async def ask_unregistered(  # noqa: PLR0917 - as `ask`, and whose client it is
    lifespan: Lifespan,
    clients: UnregisteredClients,
    client: object,
    message: Generate,
    caller: Caller,
    output: OutputType | None = None,
) -> ModelResponse:
    """Do the same with a client that was never registered; raise `BadCall` if it cannot be used."""
    entry = clients.use(client)  # here, on the loop of the caller, to which an async client belongs
    try:
        return await ask(lifespan, entry.model, message, caller, output)
    finally:
        # On the loop of the caller, too: a call that is cancelled early never gets to the actors.
        dropped = clients.release(entry)
        tree = lifespan.tree
        if dropped and tree is not None:
            await lifespan.trio_run.run(lambda: tree.drop(dropped))


async def _ask(
    lifespan: Lifespan,
    model: RegisteredModel,
    message: Generate,
    caller: Caller,
    output: OutputType | None,
) -> ModelResponse:
    limit = inf if message.time_left is None else message.time_left
    deadline = trio.current_time() + limit
    async with lifespan.use() as tree:
        with tree.requests.subscribed(message.id, LocalRequest(None, caller, deadline)):
            check = OutputCheck(output, message.request)
            try:
                with trio.move_on_at(deadline):
                    while True:
                        answer = check.read(await tree.target(model).ref.ask(message))
                        if answer is not None:
                            return _decoded(answer, output)
                        message = replace(
                            message,
                            request=check.request,
                            use_cache=message.use_cache and check.use_cache,
                            time_left=seconds_until(deadline),
                        )
            except ActorStopped as error:
                raise model.explain(error)  # noqa: B904 - the very error, or one that has it as its cause
            except AllAttemptsFailed as error:
                raise check.with_earlier(error)  # noqa: B904 - the very error, or a copy of it
    raise DeadlineExceeded(f"Model {model.name!r} did not answer within {limit:g} s")


def _decoded(answer: ModelResponse, output: OutputType | None) -> ModelResponse:
    """Return the answer with its output as a value of the caller's type."""
    if output is None or answer.tool_calls:
        return answer
    return replace(answer, output=output.value_in(answer.content))
