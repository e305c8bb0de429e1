"""The official clients in Python, asking a service over a socket."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import anthropic
import openai
import trio

from helpers.services import serving

if TYPE_CHECKING:
    from collections.abc import Callable

    from ultra.service.core import Service

__all__ = ["in_thread"]


async def in_thread(
    service: Service, work: Callable[[Any], Any], kind: Literal["openai", "anthropic"]
) -> Any:
    """Call ``work(client)`` in a thread, with a client for a running service."""

    def call(url: str) -> Any:
        client: Any
        if kind == "openai":
            client = openai.OpenAI(base_url=f"{url}/v1", api_key="any")
        else:
            client = anthropic.Anthropic(base_url=url, api_key="any")
        with client:
            return work(client)

    async with serving(service) as url:
        return await trio.to_thread.run_sync(partial(call, url))
