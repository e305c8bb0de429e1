"""The way to one Redis server: a pool that is kept while somebody owns it, else a connection for each use.

coredis ties its connections to a task group, which one task has to open and close. So a pool is kept by
`RedisServer.keep_connected`, in a task of whoever uses the server for long: the lifespan of an entered
orchestrator, or a service. Whoever has no such owner, in this trio or asyncio run, connects for each use,
which costs about a millisecond.
"""

from __future__ import annotations

from hashlib import sha1
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio
from anyio.lowlevel import RunVar

from ultra.errors import MissingExtra
from ultra.stores.redis_server import check_url, first_error, without_password

try:
    import coredis
    from coredis import PureToken
    from coredis.exceptions import NoScriptError, ReadOnlyError, ResponseError
    from coredis.retry import NoRetryPolicy
except ImportError as error:
    raise MissingExtra("a store in Redis", "redis") from error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ultra.stores.contracts import TaskStatus

__all__ = ["PureToken", "RedisServer", "Script", "first_error"]

T = TypeVar("T")

_IDLE: Final = 60
"""Seconds after which a silent connection is closed: what stands between may have forgotten it."""


class _Kept:
    """A client whose pool is open, and how many uses of it are under way.

    `quick` is another one, for all that does not wait on the server.
    """

    def __init__(self, client: coredis.Redis[bytes], quick: coredis.Redis[bytes]) -> None:
        self.client = client
        self._pool = quick.connection_pool
        self._own: coredis.BaseConnection | None = None  # the one that `send` uses
        self._lock = anyio.Lock(fast_acquire=True)  # no turn of the scheduler for it in each command
        self.users = 0
        self.is_broken = False
        self.changed = anyio.Event()

    async def own_connection(self) -> coredis.BaseConnection:
        """Return the connection for all that does not wait on the server: replies come in order of requests.

        Its pool is one of its own, or it would be given to a reading that waits, and all else behind that.
        """
        async with self._lock:  # many may come at once
            own = self._own
            if own is None or not own.usable:
                own = self._own = await self._pool.get_connection()
                self._pool.release(own)  # it knows then that there is room again where this one was closed
            return own

    def left(self) -> None:
        self.users -= 1
        if not self.users:
            self.changed.set()

    def broke(self) -> None:
        self.is_broken = True
        self.changed.set()


class Script:
    """A script for the server, which is sent once and then called by its digest."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = sha1(text.encode()).hexdigest()  # noqa: S324 - it is how Redis names scripts


class RedisServer:
    """One Redis server, which may be down. For trio and asyncio, and for the runs of several threads.

    Args:
        url: where it is. Nothing here shows a password in it.
        timeout: seconds for one use.

    Raises:
        BadCall: this is no such URL.
    """

    def __init__(self, url: str, timeout: float) -> None:
        check_url(url)
        self._url = url
        self._timeout = timeout
        self._kept: RunVar[list[_Kept]] = RunVar("kept")

    @property
    def where(self) -> str:
        """Its address, as it may be shown."""
        return without_password(self._url)

    async def use(self, work: Callable[[coredis.Redis[bytes]], Awaitable[T]], *, longer: float = 0.0) -> T:
        """Do `work`, and return its result. Cancelled, it was done or it was not.

        Args:
            work: what is done; what it asks the server for takes `timeout` seconds at most.
            longer: seconds for which the server itself may wait in it.

        Raises:
            Exception: the server does not answer in time, or refuses; `first_error` finds what it was.
        """
        kept = self._newest()
        with anyio.fail_after(self._timeout + longer) as scope:
            if kept is None:
                async with self._client() as client:
                    return await work(client)
            kept.users += 1
            try:
                return await work(kept.client)
            except ReadOnlyError:  # it was the primary, and is a replica now
                kept.broke()
                raise
            except ResponseError:
                raise
            except Exception:
                kept.broke()
                raise
            except BaseException:
                # No reply in time: the connection may be dead, and coredis would go on using it.
                if scope.deadline <= anyio.current_time():
                    kept.broke()
                raise
            finally:
                kept.left()

    async def send(self, name: bytes, *args: str | bytes | int) -> Any:  # noqa: ANN401 - of the command
        """Send a command that does not wait on the server, and return its reply; raise what `use` raises."""

        async def ask(connection: coredis.BaseConnection) -> Any:  # noqa: ANN401 - as above
            return await connection.create_request(name, *args)

        return await self._ask(ask)

    async def run(
        self, script: Script, keys: Sequence[str], args: Sequence[str | bytes | int | float]
    ) -> Any:  # noqa: ANN401 - what the script returns
        """Run a script, and return its reply; raise what `use` raises."""
        # coredis writes floats with fewer digits than they have.
        given = (len(keys), *keys, *(repr(arg) if isinstance(arg, float) else arg for arg in args))

        async def ask(connection: coredis.BaseConnection) -> Any:  # noqa: ANN401 - as above
            try:
                return await connection.create_request(b"EVALSHA", script.digest, *given)
            except NoScriptError:
                return await connection.create_request(b"EVAL", script.text, *given)

        return await self._ask(ask)

    async def _ask(self, ask: Callable[[coredis.BaseConnection], Awaitable[T]]) -> T:
        """Let `ask` send on a connection as it is: what coredis does around a command takes longer."""
        kept = self._newest()

        async def work(client: coredis.Redis[bytes]) -> T:
            if kept is not None:
                return await ask(await kept.own_connection())
            return await ask(await client.connection_pool.get_connection())  # which ends with the client

        return await self.use(work)

    async def keep_connected(self, *, task_status: TaskStatus | None = None) -> None:
        """Keep connections open for all uses in this run, until cancelled.

        Uses that are under way when it is cancelled have `timeout` seconds to end. A connection that has
        failed is not used again.
        """
        pools = self._pools()
        while True:
            async with self._client() as client, self._client() as quick:  # nothing is sent before a use
                kept = _Kept(client, quick)
                pools.append(kept)
                try:
                    if task_status is not None:
                        task_status.started()
                        task_status = None
                    while not kept.is_broken:
                        kept.changed = anyio.Event()
                        await kept.changed.wait()
                finally:
                    pools.remove(kept)
                    if not kept.is_broken:
                        await self._finish(kept)

    def _pools(self) -> list[_Kept]:
        try:
            return self._kept.get()
        except LookupError:
            pools: list[_Kept] = []
            self._kept.set(pools)
            return pools

    def _newest(self) -> _Kept | None:
        pools = self._pools()
        return pools[-1] if pools and not pools[-1].is_broken else None

    async def _finish(self, kept: _Kept) -> None:
        with anyio.move_on_after(self._timeout, shield=True):
            while kept.users:
                kept.changed = anyio.Event()
                await kept.changed.wait()

    def _client(self) -> coredis.Redis[bytes]:
        return coredis.Redis.from_url(
            self._url,
            verify_version=False,
            retry_policy=NoRetryPolicy(),
            connect_timeout=self._timeout,
            max_idle_time=_IDLE,
        )
