"""The connections of one client, in several small pools in place of a large one.

httpx's pool (httpcore 1.0) goes through all of its connections whenever a call begins or ends, and asks
the operating system about each idle one. So what a call costs grows with the pool: measured on loopback,
0.7 ms of processor time with 8 connections, 2.7 ms with 32 and 5 ms with 128, but 1 ms in any number of
pools of 8. httpx's bound on idle connections counts the busy ones, too (20 are kept while fewer than
20 exist in all, and none beyond), so a pool that is used widely would open a connection for every call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

__all__ = ["CALLS_PER_POOL", "ConnectionPool", "ConnectionPools"]

CALLS_PER_POOL: Final = 8
"""Calls at once in one pool."""

_IDLE_TIME: Final = 5.0
"""Seconds that an unused pool is kept, as long as httpx keeps an unused connection."""


class ConnectionPool:
    """One small pool: an `httpx.AsyncClient`, and how many calls are in it."""

    __slots__ = ("calls", "client", "used_until")

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.calls = 0
        self.used_until = 0.0

    async def send(self, request: httpx.Request) -> httpx.Response:
        """Send `request` and read the head of the answer. Cancelled, or failed, it leaves no connection open.

        Raises:
            httpx.NetworkError: the pool was closed meanwhile; and whatever else httpx raises.
        """
        response = await self.client.send(request, stream=True)
        if self.client.is_closed:
            # To close a pool closes the connections that are open; one that was still being opened is
            # merely forgotten, and nobody else would ever close it.
            with trio.CancelScope(shield=True):
                await response.aclose()
            import httpx  # noqa: PLC0415 - loaded already: there is a response

            raise httpx.NetworkError("the client was closed")
        return response


class ConnectionPools:
    """The pools of one client in one trio run. Calls go to the first one that has room.

    Args:
        make: makes the client of a pool.
        calls: how many calls at once a pool takes; None: any number, so that there is one pool.
    """

    def __init__(self, make: Callable[[], httpx.AsyncClient], *, calls: int | None = CALLS_PER_POOL) -> None:
        self._make = make
        self._calls = calls
        self._pools: list[ConnectionPool] = []

    @property
    def clients(self) -> tuple[httpx.AsyncClient, ...]:
        """The clients of all pools."""
        return tuple(pool.client for pool in self._pools)

    def take(self) -> ConnectionPool:
        """Return a pool for one more call; give it back when the call has ended."""
        for pool in self._pools:
            if self._calls is None or pool.calls < self._calls:
                break
        else:
            pool = ConnectionPool(self._make())
            self._pools.append(pool)
        pool.calls += 1
        return pool

    async def give_back(self, pool: ConnectionPool) -> None:
        """Note that a call has ended, and close the last pool if it was idle for some time.

        To be called in a shielded scope.
        """
        pool.calls -= 1
        pool.used_until = trio.current_time()
        # Calls go to the first pools, so the last ones are the first to be idle, together with all
        # connections of theirs: without this those would stay open until the server closes them.
        last = self._pools[-1] if len(self._pools) > 1 else pool
        if last is not pool and not last.calls and last.used_until + _IDLE_TIME < pool.used_until:
            self._pools.pop()
            await last.client.aclose()

    async def aclose(self) -> None:
        """Close all connections; calls in flight fail. To be called in a shielded scope."""
        pools, self._pools = self._pools, []
        for pool in pools:
            await pool.client.aclose()
