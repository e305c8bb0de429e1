"""Asking each deployment of a configuration for one token, for `ultra config check --ask`."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio

from ultra.clients.adapter import ClientAdapter
from ultra.errors import ModelError
from ultra.messages.request import ModelRequest, SamplingOptions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ultra.config.configuration import Configuration
    from ultra.config.sections import DeploymentConfig

__all__ = ["probe"]

_TIMEOUT = 30.0
"""Seconds that a deployment has to answer."""

_QUESTION: Final = ModelRequest.of("Say yes.", options=SamplingOptions(max_tokens=1))


async def probe(
    configuration: Configuration, clients: Mapping[str, Sequence[object]]
) -> list[tuple[str, str | None]]:
    """Ask all deployments at once, and return each with its error, or None if it answered.

    `clients` are those of the deployments, by the name of the model; they are closed afterwards.
    """
    outcomes: dict[str, str | None] = {}

    async def ask(name: str, deployment: DeploymentConfig, client: object) -> None:
        outcomes[f"{name} ({deployment.what})"] = await _error_of(deployment, client)

    async with trio.open_nursery() as nursery:
        for name, model in configuration.models.items():
            for deployment, client in zip(model.deployments, clients[name], strict=True):
                nursery.start_soon(ask, name, deployment, client)
    return sorted(outcomes.items())


async def _error_of(deployment: DeploymentConfig, client: object) -> str | None:
    if deployment.placement is not None:
        return "it is placed in a cluster, and is not asked from here"
    adapter = ClientAdapter(client, owned=True)
    try:
        with trio.fail_after(_TIMEOUT):
            await adapter.call(_QUESTION)
    except trio.TooSlowError:
        return f"no answer within {_TIMEOUT:g} s"
    except ModelError as error:
        # One token may be too few for a word, and OpenAI refuses to end within reasoning. So an answer
        # without text counts as an answer here.
        cut = error.kind == "content" or "model output limit was reached" in error.message
        return None if cut else str(error)
    else:
        return None
    finally:
        with trio.CancelScope(shield=True), suppress(ModelError):
            await adapter.aclose()
