"""Asks each model of a configuration for one token, to see whether it answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ultra.errors import ModelError

if TYPE_CHECKING:
    from ultra.config.loading import Configuration, DeploymentConfig

__all__ = ["probe"]

_PATIENCE = 30.0
"""Seconds that a model has to answer."""


async def probe(configuration: Configuration) -> list[tuple[str, str | None]]:
    """Ask all deployments at once; gives each with its error, or None where it answered."""
    outcomes: dict[str, str | None] = {}

    async def ask(name: str, deployment: DeploymentConfig) -> None:
        outcomes[f"{name} ({deployment.model})"] = await _error_of(deployment)

    async with trio.open_nursery() as nursery:
        for name, model in configuration.models.items():
            for deployment in model.deployments:
                nursery.start_soon(ask, name, deployment)
    return sorted(outcomes.items())


async def _error_of(deployment: DeploymentConfig) -> str | None:
    client = deployment.connect()
    try:
        with trio.fail_after(_PATIENCE):
            await client.generate("Say yes.", max_tokens=1)
    except trio.TooSlowError:
        return f"no answer within {_PATIENCE:g} s"
    except ModelError as error:
        # One token may be too few for a word, and OpenAI refuses to end in the middle of a thought: an
        # answer without text is an answer here.
        cut = error.kind == "content" or "model output limit was reached" in error.message
        return None if cut else str(error)
    else:
        return None
    finally:
        with trio.CancelScope(shield=True):
            await client.aclose()
