"""The connections of stores, kept open while an orchestrator is entered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self

import trio

from ultra.stores.connections import keep_connected
from ultra.stores.contracts import KeepsConnections

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["KeptConnections"]


_PATIENCE: Final = 1.0
"""Seconds to wait for stores that do not say that they have begun."""


class _Begun:
    """A status that one can wait for."""

    def __init__(self) -> None:
        self.event = trio.Event()

    def started(self) -> None:
        self.event.set()


class KeptConnections:
    """Keeps the connections of those stores that have any; a context manager, on trio.

    Entering it connects to nothing: a store does that at its first use. Leaving it closes the connections.
    """

    def __init__(self, stores: Iterable[object]) -> None:
        self._stores = tuple(stores)
        self._manager = trio.open_nursery(strict_exception_groups=True)
        self._nursery: trio.Nursery | None = None

    async def __aenter__(self) -> Self:
        self._nursery = nursery = await self._manager.__aenter__()
        try:
            await self._begin(nursery)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def _begin(self, nursery: trio.Nursery) -> None:
        begun = []
        for store in self._stores:
            if isinstance(store, KeepsConnections):
                begun.append(_Begun())
                nursery.start_soon(keep_connected, store, begun[-1])
        with trio.move_on_after(_PATIENCE):  # not `start`: a store might never say that it has begun
            for each in begun:
                await each.event.wait()

    async def __aexit__(self, *_: object) -> None:
        nursery, self._nursery = self._nursery, None
        if nursery is not None:
            nursery.cancel_scope.shield = True
            nursery.cancel_scope.cancel()
            await self._manager.__aexit__(None, None, None)
