"""Asking a provider which models it offers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from ultra.clients.providers import connect, find_provider
from ultra.errors import BadCall

if TYPE_CHECKING:
    from ultra.clients.dialects.model_lists import OfferedModel

__all__ = ["list_models"]


async def list_models(
    provider: str,
    *,
    api_key: str | None = None,
    base_url: str | None = None,
    **options: Any,  # noqa: ANN401 - those of `connect`
) -> tuple[OfferedModel, ...]:
    """Return the models that a provider offers by its own API, in its order, with what is known of each.

    Runs on trio. The arguments are those of `connect`. Cancelled, it closes its connections.

    Raises:
        BadCall: no such provider, no key, or a provider that has no list.
        ModelError: it cannot be reached, it refuses, or its answer is no list.
    """
    example = find_provider(provider).example or f"{provider}:model"
    if not example.partition(":")[2]:
        example = f"{provider}:model"
    client = connect(example, api_key=api_key, base_url=base_url, **options)
    try:
        ask = getattr(client, "list_models", None)
        if ask is None:
            raise BadCall(f"the client of {provider} cannot list models")
        found: tuple[OfferedModel, ...] = await ask()
        return found
    finally:
        with trio.CancelScope(shield=True):
            await client.aclose()
