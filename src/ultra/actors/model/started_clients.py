"""The clients of one model that start and end with its actor."""

from __future__ import annotations

from contextlib import AsyncExitStack
from inspect import getattr_static
from typing import TYPE_CHECKING, Final, Self, cast

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from ultra.clients.protocol import StartedClient
    from ultra.errors import ClientCrashed

__all__ = ["StartedClients"]

END_TIMEOUT: Final = 5.0
"""Seconds that clients have to end which were started for nothing, as long as an `on_stop` has."""


class StartedClients:
    """Starts the clients of one registration that are `StartedClient`, all for each of its actors."""

    def __init__(self, clients: tuple[StartedClient, ...]) -> None:
        self._clients = clients

    @classmethod
    def among(cls, clients: Iterable[object]) -> Self | None:
        """Return those among `clients`; None if there are none."""
        # Looked up without `__getattr__`: mocks and proxies have every attribute that they are asked for.
        found = [each for each in clients if getattr_static(each, "start_with_actor", None) is not None]
        return cls(tuple(cast("StartedClient", each) for each in found)) if found else None

    async def start(self, on_crash: Callable[[ClientCrashed], None]) -> Callable[[], Awaitable[None]]:
        """Start them for one actor, in order, and return what ends them, in reverse order.

        If one fails to start, or this is cancelled, those that were started before are ended; they have 5
        seconds for that.
        """
        started = AsyncExitStack()
        try:
            for client in self._clients:
                started.push_async_callback(await client.start_with_actor(on_crash))
        except BaseException:
            with trio.move_on_after(END_TIMEOUT, shield=True):
                await started.aclose()
            raise
        return started.aclose

    async def until_ready(self) -> None:
        """Wait until all of them can be called. Raises `ClientCrashed`."""
        for client in self._clients:
            await client.until_ready()
