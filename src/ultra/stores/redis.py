"""A store that keeps models' answers in Redis, which many processes and machines may share."""

from __future__ import annotations

import secrets
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, TypeVar

import trio

from ultra._support.checks import check_count, check_seconds
from ultra.stores.contracts import SECRET_BYTES, is_whole
from ultra.stores.counters import ShardCounters
from ultra.stores.encoding import BadAnswer, decode_answer, encode_answer
from ultra.stores.outage import Outage, Unavailable
from ultra.stores.redis_connection import PureToken, RedisServer, first_error
from ultra.stores.redis_server import check_url

if TYPE_CHECKING:
    import coredis

    from ultra.messages.results import Completion
    from ultra.stores.contracts import CacheKey, CacheStatistics, TaskStatus

__all__ = ["RedisCache", "RedisShard", "check_url"]

T = TypeVar("T")

FORMAT: Final = 1
"""A part of each key in the database, so versions of Ultra with other formats do not read these answers."""


class _Answers:
    """The server, which is left alone for a while after it has failed."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self.outage = Outage(store=server.where)

    async def send(self, name: bytes, *args: str | bytes | int) -> Any:  # noqa: ANN401 - of the command
        """Send a command, and return its reply. Cancelled, it was done or it was not.

        Raises:
            Unavailable: it failed or took too long; or the server has just failed, and was not tried.
        """
        await self.outage.check()
        try:
            result = await self.server.send(name, *args)
        except Exception as error:
            # The network's errors in exception groups, coredis's, and those of bytes that are no reply.
            self.outage.begin(first_error(error))
            raise Unavailable from error
        self.outage.end()
        return result


class RedisShard:
    """One model's answers in Redis. The counters are those of this process."""

    def __init__(self, server: _Answers, prefix: str, *, max_answer_bytes: int, ttl: float | None) -> None:
        self._server = server
        self._prefix = prefix.encode()
        self._max_answer_bytes = max_answer_bytes
        self._ttl = ttl
        self._counters = ShardCounters()

    async def get(self, key: CacheKey) -> Completion | None:
        """Return the answer that is kept under `key`; None if there is none, or no reply in time.

        A checkpoint. Cancelled, it leaves the shard as it was.
        """
        try:
            # No more of it than one byte too many: who else writes to the server may have put anything there.
            answer = await self._server.send(b"GETRANGE", self._prefix + key, 0, self._max_answer_bytes)
        except Unavailable:
            self._counters.add(misses=1, failures=1)
            return None
        if not answer or len(answer) > self._max_answer_bytes:
            self._counters.add(misses=1)
            return None
        try:
            found = decode_answer(answer)
        except BadAnswer as error:
            self._server.outage.warn(error)
            self._counters.add(misses=1, failures=1)
            return None
        self._counters.add(hits=1)
        return found

    async def put(self, key: CacheKey, completion: Completion) -> None:
        """Keep `completion` under `key`, if it is whole and the server takes it in time.

        A checkpoint. Cancelled, it has kept the answer or has not.
        """
        try:
            answer = encode_answer(completion)
        except BadAnswer:
            answer = None
        if answer is None or not is_whole(completion) or len(answer) > self._max_answer_bytes:
            self._counters.add(refused=1)
            await trio.lowlevel.checkpoint()
            return
        lasts = () if self._ttl is None else (b"PX", max(1, round(self._ttl * 1000)))
        try:
            await self._server.send(b"SET", self._prefix + key, answer, *lasts)
        except Unavailable:
            self._counters.add(failures=1)
            return
        self._counters.add(stored=1)

    def statistics(self) -> CacheStatistics:
        """Return the counters of this process. What the server holds, evicts and expires is not counted."""
        return self._counters.read()


class RedisCache:
    """Keeps answers in the Redis server at `url`: ``redis://[user:password@]host[:port][/database]``.

    ``rediss://`` is the same over TLS. Making the store asks the server for its secret, which blocks for at
    most `timeout` seconds; nothing after that blocks. A server that does not answer is not used for 30
    seconds after each warning, and then tried again. How much the server holds, and which answers it evicts,
    is set there: ``maxmemory`` and ``maxmemory-policy allkeys-lru``.

    Args:
        url: where the server is. No log, error or repr of Ultra shows a password in it.
        ttl: seconds for which an answer is good, by the server's clock; None: for ever.
        max_answer_bytes: a bigger answer is not kept.
        timeout: seconds for one use of the server.
        prefix: how the keys in the database begin.

    Raises:
        BadCall: an argument is out of its range.
        MissingExtra: coredis is not installed; raised by importing this module.
    """

    def __init__(
        self,
        url: str,
        *,
        ttl: float | None = 7 * 86400.0,
        max_answer_bytes: int = 2**20,
        timeout: float = 1.0,
        prefix: str = "ultra",
    ) -> None:
        check_seconds("timeout", timeout, positive=True)
        check_count("max_answer_bytes", max_answer_bytes)
        check_seconds("ttl", ttl, positive=True, optional=True)
        self._ttl = ttl
        self._max_answer_bytes = max_answer_bytes
        self._prefix = f"{prefix}:{FORMAT}:"
        self._server = _Answers(RedisServer(url, timeout))
        self._shards: dict[str, RedisShard] = {}
        self._secret = self._fetch_secret()

    @property
    def secret(self) -> bytes:
        """32 random bytes that are kept on the server; if it did not answer, new ones for this store."""
        return self._secret

    def shard(self, name: str) -> RedisShard:
        """Return the shard of the model `name`, the same one each time."""
        shard = self._shards.get(name)
        if shard is None:
            digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
            prefix = f"{self._prefix}{digest}:"
            made = RedisShard(self._server, prefix, max_answer_bytes=self._max_answer_bytes, ttl=self._ttl)
            shard = self._shards.setdefault(name, made)  # another thread may have been first
        return shard

    async def keep_connected(self, *, task_status: TaskStatus | None = None) -> None:
        """Keep connections open until cancelled; see `KeepsConnections`."""
        await self._server.server.keep_connected(task_status=task_status)

    async def aclose(self) -> None:
        """Do nothing: what is held open belongs to `keep_connected`. A checkpoint."""
        await trio.lowlevel.checkpoint()

    def _fetch_secret(self) -> bytes:
        # In a thread and a trio run of its own: the caller may be on any loop, or on none.
        try:
            with ThreadPoolExecutor(max_workers=1) as thread:
                return thread.submit(trio.run, self._share_secret).result()
        except RuntimeError as error:  # no thread can be started
            self._server.outage.warn(error)
            return secrets.token_bytes(SECRET_BYTES)

    async def _share_secret(self) -> bytes:
        """Return the secret on the server; put one there if it has none."""
        name, new = f"{self._prefix}secret", secrets.token_bytes(SECRET_BYTES)

        async def share(client: coredis.Redis[bytes]) -> bytes:
            await client.set(name, new, condition=PureToken.NX)
            found = await client.getrange(name, 0, SECRET_BYTES)
            if len(found) != SECRET_BYTES:
                raise ValueError(f"the secret on the server does not have {SECRET_BYTES} bytes")
            return found

        try:
            return await self._server.server.use(share)
        except Exception as error:  # noqa: BLE001 - as in `run`
            self._server.outage.warn(first_error(error))
            return new
