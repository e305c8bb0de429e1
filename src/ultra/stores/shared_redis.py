"""What replicas share of their models, in Redis: scripts on its clock, and a stream of what is told."""

from __future__ import annotations

from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
import trio
from msgspec import Struct

from ultra._support.checks import check_seconds
from ultra._support.forking import Forkable
from ultra._support.randomness import new_id
from ultra.stores.encoding import BadAnswer, decode_answer, encode_answer
from ultra.stores.redis_connection import PureToken, RedisServer, Script, first_error
from ultra.stores.shared_contract import (
    CALL_SECONDS,
    ModelNews,
    Reservation,
    SharedUnavailable,
    buckets_of,
)
from ultra.stores.shared_outbox import Correction, Listeners, Outbox

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import coredis

    from ultra.messages import Completion
    from ultra.stores.contracts import TaskStatus
    from ultra.stores.shared_contract import FlightKey, Listener, ModelRates

__all__ = ["RedisSharedModels"]

T = TypeVar("T")

FORMAT: Final = 1
"""A part of each key in the database."""

_BLOCK: Final = 5.0
"""Seconds for which one reading of what is told waits on the server."""

_PAUSE: Final = 0.5
"""Seconds before another try to use a server that does not work."""

_LOOKS: Final = (0.02, 0.05, 0.1, 0.2)
"""Seconds between looks for the answer of a call that another process makes; then the last one."""

_ANSWER_SECONDS: Final = 5.0
"""How long the answer of a call is left for those that wait for it."""

_MOST_BYTES: Final = 2**20
_MOST_AGE: Final = 3600.0
_FORGET: Final = 0.001

_COMMON: Final = """
local p = KEYS[1]
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6 + tonumber(ARGV[1])
local function text(number) return string.format('%.17g', number) end

local function bucket_of(name, most, rate)
  local row = {key = p .. 'rate:' .. name, most = most, rate = rate}
  local found = redis.call('HMGET', row.key, 'level', 'at', 'full', 'most')
  row.level = (tonumber(found[1]) or most) + most - (tonumber(found[4]) or most)
  row.level = math.min(most, row.level + math.max(0, now - (tonumber(found[2]) or now)) * rate / 60)
  row.full = row.level >= most and now or tonumber(found[3]) or now
  return row
end

local function save(row)
  redis.call('HSET', row.key, 'level', text(row.level), 'at', text(now), 'full', text(row.full),
    'most', text(row.most))
  redis.call('EXPIRE', row.key, math.ceil(120 + math.max(0, row.most - row.level) * 60 / row.rate))
end
"""

_RESERVE: Final = Script(
    _COMMON
    + """
local seen, rows, wait = p .. 'replicas', {}, 0
redis.call('ZADD', seen, text(now), ARGV[2])
redis.call('ZREMRANGEBYSCORE', seen, '-inf', text(now - 60))
for place = 4, #ARGV, 5 do
  local row = bucket_of(ARGV[place], tonumber(ARGV[place + 1]), tonumber(ARGV[place + 2]))
  local units, owed = math.min(tonumber(ARGV[place + 3]), row.most), tonumber(ARGV[place + 4])
  if owed > 0 then
    row.level = math.max(-row.most, row.level - owed)
    save(row)
  end
  wait = math.max(wait, (units - row.level) * 60 / row.rate)
  row.units = units
  table.insert(rows, row)
end
local taken, levels = wait <= tonumber(ARGV[3]), {}
for _, row in ipairs(rows) do
  if taken then
    row.level = row.level - row.units
    save(row)
  end
  table.insert(levels, text(row.level))
end
return {text(wait), taken and 1 or 0, text(now), redis.call('ZCARD', seen), levels}
"""
)

_SETTLE: Final = Script(
    _COMMON
    + """
for place = 2, #ARGV, 5 do
  local row = bucket_of(ARGV[place], tonumber(ARGV[place + 1]), tonumber(ARGV[place + 2]))
  local units = tonumber(ARGV[place + 3])
  if units > 0 or row.full <= tonumber(ARGV[place + 4]) then
    row.level = math.max(-row.most, math.min(row.most, row.level - units))
    save(row)
  end
end
"""
)

_BEGIN: Final = Script("""
local key = KEYS[1] .. 'call:' .. ARGV[1]
local found = redis.call('GET', key)
if found and found ~= 'r' .. ARGV[2] then return 0 end
redis.call('SET', key, 'r' .. ARGV[2], 'PX', ARGV[3])
return 1
""")

_FINISH: Final = Script("""
local key = KEYS[1] .. 'call:' .. ARGV[1]
if redis.call('GET', key) ~= 'r' .. ARGV[2] then return end
if ARGV[4] == '' then redis.call('DEL', key) else redis.call('SET', key, 'a' .. ARGV[4], 'PX', ARGV[3]) end
""")

_BEAT: Final = Script("""
local time = redis.call('TIME')
redis.call('ZADD', KEYS[1] .. 'replicas', tonumber(time[1]) + tonumber(ARGV[1]), ARGV[2])
redis.call('EXPIRE', KEYS[1] .. 'replicas', 120)
for place = 4, #ARGV do
  local key = KEYS[1] .. 'call:' .. ARGV[place]
  if redis.call('GET', key) == 'r' .. ARGV[2] then redis.call('PEXPIRE', key, ARGV[3]) end
end
""")


class _Told(Struct, frozen=True, kw_only=True):
    """What is told, as it stands in the stream."""

    origin: str
    news: ModelNews


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(_Told).decode


class RedisSharedModels(Forkable):
    """The view of this process of what is shared in the Redis server at `url`; see `SharedModels`.

    Args:
        url: ``redis://[user:password@]host[:port][/database]``. No log, error or repr shows a password in it.
        timeout: seconds for one use of the server; so long a call waits for it at most.
        prefix: how the keys in the database begin.
        ahead: seconds that are added to the server's clock, for tests.

    Raises:
        BadCall: an argument is not allowed.
        MissingExtra: coredis is not installed; raised by importing this module.
    """

    def __init__(
        self, url: str, *, timeout: float = 0.5, prefix: str = "ultra-shared", ahead: float = 0.0
    ) -> None:
        super().__init__()
        check_seconds("timeout", timeout, positive=True)
        self._server = RedisServer(url, timeout)
        self._prefix = f"{prefix}:{FORMAT}:"
        self.ahead = ahead
        self._replica = new_id()
        self._outbox = Outbox()
        self._listeners = Listeners()
        self._calls: dict[FlightKey, None] = {}  # that this process makes
        self._keepers = 0

    def forked(self) -> None:
        """Be another replica than the parent, which passes on itself what it was told."""
        self._replica = new_id()
        self._outbox = Outbox()
        self._calls = {}
        self._keepers = 0

    async def reserve(
        self,
        model: str,
        rates: ModelRates,
        tokens: float,
        max_wait: float,
        *,
        owed: tuple[float, float] = (0.0, 0.0),
    ) -> Reservation:
        """Take from the rates of a model; see `SharedModels.reserve`."""
        wanted: list[str | float] = []
        left = {"requests": inf, "tokens": inf}
        for kind, most, per_minute in buckets_of(rates):
            units, debt = (1.0, owed[0]) if kind == "requests" else (tokens, owed[1])
            wanted += [f"{kind}:{model}", most, per_minute, units, debt]
        longest = 1e12 if max_wait == inf else max_wait
        wait, taken, at, replicas, levels = await self._run(
            _RESERVE, self.ahead, self._replica, longest, *wanted
        )
        for (kind, _, _), level in zip(buckets_of(rates), levels, strict=True):
            left[kind] = float(level)
        return Reservation(
            wait=max(0.0, float(wait)),
            taken=bool(taken),
            at=float(at),
            left=(left["requests"], left["tokens"]),
            replicas=replicas,
        )

    def settle(
        self, model: str, rates: ModelRates, at: float, *, requests: float = 0.0, tokens: float = 0.0
    ) -> None:
        """Correct what was taken; see `SharedModels.settle`."""
        self._outbox.put(Correction(model, rates, at, requests, tokens))

    def tell(self, news: ModelNews) -> None:
        """Tell all other processes; see `SharedModels.tell`."""
        self._outbox.put(news)

    def listen(self, model: str, listener: Listener) -> Callable[[], None]:
        """Listen to what others tell; see `SharedModels.listen`."""
        return self._listeners.add(model, listener)

    async def begin(self, key: FlightKey) -> bool:
        """Return whether this process may make a call; see `SharedModels.begin`."""
        if not self._keepers:
            await trio.lowlevel.checkpoint()
            return True
        leased = await self._run(_BEGIN, key.hex(), self._replica, round(CALL_SECONDS * 1000))
        if leased:
            self._calls[key] = None
            self._outbox.finished.pop(key, None)  # of an earlier call
        return bool(leased)

    def finish(self, key: FlightKey, answer: Completion | None) -> None:
        """End a call; see `SharedModels.finish`."""
        if self._calls.pop(key, 0) is None:
            self._outbox.finish(key, answer)

    async def wait(self, key: FlightKey) -> Completion | None:
        """Wait for the end of a call; see `SharedModels.wait`."""
        name, looks = f"{self._prefix}call:{key.hex()}", 0
        while True:
            found = await self._use(lambda client: client.get(name))
            if not found or found[:1] == b"a":
                break
            await trio.sleep(_LOOKS[min(looks, len(_LOOKS) - 1)])
            looks += 1
        try:
            return decode_answer(found[1:]) if found else None
        except BadAnswer:
            return None

    async def keep_connected(self, *, task_status: TaskStatus | None = None) -> None:
        """Pass on what is told, and hear what others tell; see `SharedModels.keep_connected`."""
        async with trio.open_nursery(strict_exception_groups=True) as nursery:
            await nursery.start(lambda task_status: self._server.keep_connected(task_status=task_status))
            self._keepers += 1
            try:
                nursery.start_soon(self._pass_on)
                nursery.start_soon(self._beat)
                if task_status is not None:
                    task_status.started()
                await self._hear()
            finally:
                self._keepers -= 1

    async def aclose(self) -> None:
        """Do nothing: what is held open belongs to `keep_connected`. A checkpoint."""
        await trio.lowlevel.checkpoint()

    # --- the tasks -----------------------------------------------------------------------------------

    async def _pass_on(self) -> None:
        outbox = self._outbox
        while True:
            await outbox.wait()
            try:
                await self._settle()
                while outbox.finished:
                    key, answer = next(iter(outbox.finished.items()))
                    lasts = round(_ANSWER_SECONDS * 1000)
                    await self._run(_FINISH, key.hex(), self._replica, lasts, _encoded(answer))
                    outbox.finished.pop(key, None)
                while outbox.news:
                    told = _encode(_Told(origin=self._replica, news=outbox.news[0]))
                    await self._use(partial(self._add, told))
                    del outbox.news[:1]
            except SharedUnavailable:
                await trio.sleep(_PAUSE)

    async def _settle(self) -> None:
        # Taken out first: a correction that was perhaps made must not be made twice.
        given, self._outbox.corrections = self._outbox.corrections, []
        args: list[str | float] = []
        for model, rates, at, requests, tokens in given:
            for kind, most, per_minute in buckets_of(rates):
                units = requests if kind == "requests" else tokens
                if units:
                    args += [f"{kind}:{model}", most, per_minute, units, at]
        if args:
            await self._run(_SETTLE, self.ahead, *args)

    async def _add(self, told: bytes, client: coredis.Redis[bytes]) -> object:
        return await client.xadd(
            f"{self._prefix}news",
            {"n": told},
            trim_strategy=PureToken.MAXLEN,
            trim_operator=PureToken.APPROXIMATELY,
            threshold=1000,
        )

    async def _beat(self) -> None:
        """Renew the leases of calls, and be counted among the replicas."""
        while True:
            try:
                calls = [key.hex() for key in self._calls]
                await self._run(_BEAT, self.ahead, self._replica, round(CALL_SECONDS * 1000), *calls)
                await trio.sleep(CALL_SECONDS / 4)
            except SharedUnavailable:
                await trio.sleep(_PAUSE)

    async def _hear(self) -> None:
        """Hear what others tell: first what still holds of what was told before."""
        name, last = f"{self._prefix}news", "0-0"
        while True:
            try:
                found = await self._server.use(
                    lambda client, last=last: client.xread(  # type: ignore[misc] # a lambda's default has no type
                        {name: last}, count=1000, block=round(_BLOCK * 1000)
                    ),
                    longer=_BLOCK,
                )
                if not found:
                    continue
                now = (await self._server.use(lambda client: client.time())).timestamp()
            except Exception:  # noqa: BLE001 - whatever it is, it is heard when the server works again
                await trio.sleep(_PAUSE)
                continue
            for entries in found.values():
                for entry in entries:
                    last = _text(entry.identifier)
                    self._heard(entry.field_values, now - int(last.partition("-")[0]) / 1000)

    def _heard(self, fields: Any, age: float) -> None:  # noqa: ANN401 - of coredis
        try:
            told = _decode(next(iter(fields.values())))
        except (msgspec.DecodeError, StopIteration):
            return
        if told.origin == self._replica:
            return
        news = told.news
        left = min(news.seconds, _MOST_AGE) - max(0.0, age)
        if news.kind == "closed" or left > _FORGET:
            self._listeners.tell(ModelNews(model=news.model, kind=news.kind, seconds=max(0.0, left)))

    # --- the server ----------------------------------------------------------------------------------

    async def _run(self, script: Script, *args: str | bytes | float) -> Any:  # noqa: ANN401 - what it returns
        return await self._done(self._server.run(script, [self._prefix], args))

    async def _use(self, work: Callable[[coredis.Redis[bytes]], Awaitable[T]]) -> T:
        return await self._done(self._server.use(work))

    async def _done(self, use: Awaitable[T]) -> T:
        try:
            return await use
        except Exception as error:
            # The network's errors in exception groups, coredis's, and those of bytes that are no reply.
            raise SharedUnavailable(f"{self._server.where}: {first_error(error)}") from error


def _encoded(answer: Completion | None) -> bytes:
    if answer is None:
        return b""
    try:
        encoded = encode_answer(answer)
    except BadAnswer:
        return b""
    return encoded if len(encoded) <= _MOST_BYTES else b""


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
