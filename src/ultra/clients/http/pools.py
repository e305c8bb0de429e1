"""The connections of one client, in several small pools in place of a large one.

httpx's pool (httpcore 1.0) goes through all of its connections whenever a call begins or ends, and asks
the operating system about each idle one. So what a call costs grows with the pool: measured on loopback,
0.7 ms of processor time with 8 connections, 2.7 ms with 32 and 5 ms with 128, but 1 ms in any number of
pools of 8. httpx's bound on idle connections, too, counts the busy ones (20 are kept while fewer than
20 exist in all, and none beyond), so a pool that is used widely would open a connection for every call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

__all__ = ["CALLS_A_SHARD", "Shard", "Shards"]

CALLS_A_SHARD: Final = 8
"""Calls at once in one pool."""

_KEPT: Final = 5.0
"""Seconds that an unused pool is kept, as long as httpx keeps an unused connection."""


class Shard:
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


class Shards:
    """The pools of one client in one trio run. Calls go to the first one that has room.

    Args:
        make: makes the client of a pool.
        calls: how many calls at once a pool takes; None for any number, in one pool.
    """

    def __init__(self, make: Callable[[], httpx.AsyncClient], *, calls: int | None = CALLS_A_SHARD) -> None:
        self._make = make
        self._calls = calls
        self._shards: list[Shard] = []

    @property
    def clients(self) -> tuple[httpx.AsyncClient, ...]:
        """The clients of all pools."""
        return tuple(shard.client for shard in self._shards)

    def take(self) -> Shard:
        """A pool for one more call, which has to be given back when the call has ended."""
        for shard in self._shards:
            if self._calls is None or shard.calls < self._calls:
                break
        else:
            shard = Shard(self._make())
            self._shards.append(shard)
        shard.calls += 1
        return shard

    async def give_back(self, shard: Shard) -> None:
        """A call has ended. Closes a pool that nobody has used for a while; to be shielded."""
        shard.calls -= 1
        shard.used_until = trio.current_time()
        # Calls go to the first pools, so the last ones are the first to be idle, together with all
        # connections of theirs: without this those would stay open until the server closes them.
        last = self._shards[-1] if len(self._shards) > 1 else shard
        if last is not shard and not last.calls and last.used_until + _KEPT < shard.used_until:
            self._shards.pop()
            await last.client.aclose()

    async def aclose(self) -> None:
        """Close all connections; calls in flight fail. To be shielded."""
        shards, self._shards = self._shards, []
        for shard in shards:
            await shard.client.aclose()
