"""Limits in Redis, which many machines share: the rules of `limit_rules`, as a script on its own clock."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from msgspec import structs

from ultra._support.randomness import new_id
from ultra.stores.contracts import GRANT_SECONDS, Decision, LimitState, LimitsUnavailable
from ultra.stores.redis_connection import RedisServer, Script, first_error

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ultra.stores.contracts import TaskStatus, Want

__all__ = ["RedisLimits"]

FORMAT: Final = 1
"""A part of each key in the database."""

_SCRIPT: Final = Script("""
local prefix, action = KEYS[1], ARGV[1]
local lasts, ahead = tonumber(ARGV[2]), tonumber(ARGV[3])
local given = cjson.decode(ARGV[4])
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6 + ahead
local ends, wanted = prefix .. 'ends', prefix .. 'grants'

local function text(number) return string.format('%.17g', number) end

local function row_of(want)
  local key = prefix .. 'limit:' .. want.name
  local found = redis.call('HMGET', key, 'level', 'held', 'at')
  local row = {key = key, held = tonumber(found[2]) or 0, at = tonumber(found[3]) or now}
  row.level = tonumber(found[1])
  if want.kind == 'rate' then
    row.level = row.level or want.most
    row.level = math.min(want.most, row.level + math.max(0, now - row.at) * want.most / 60)
    row.at = now
    row.keep = 120 + math.max(0, -row.level) * 60 / want.most
  else
    row.level = row.level or 0
    row.keep = math.max(want['until'] - now, 2 * lasts)
  end
  return row
end

local function save(row)
  redis.call('HSET', row.key, 'level', text(row.level), 'held', text(row.held), 'at', text(row.at))
  if row.held > 0 then redis.call('PERSIST', row.key)
  else redis.call('EXPIRE', row.key, math.ceil(row.keep)) end
end

local function finish(grant, used)
  local data = redis.call('HGET', wanted, grant)
  if not data then return end
  redis.call('HDEL', wanted, grant)
  redis.call('ZREM', ends, grant)
  for _, want in ipairs(cjson.decode(data)) do
    local row = row_of(want)
    local real = used and used[want.name] or want.amount
    if want.kind == 'rate' then
      row.level = math.min(want.most, row.level + math.min(want.amount, want.most) - real)
    else
      row.held = row.held - want.amount
      if row.held <= 1e-9 then row.held = 0 end
      if want.kind == 'budget' then row.level = row.level + real end
    end
    save(row)
  end
end

local function wait_of(want, row)
  if want.kind == 'rate' then
    local lacking = math.min(want.amount, want.most) - row.level
    if lacking > 1e-9 * want.most then return lacking * 60 / want.most end
  elseif want.kind == 'budget' then
    if row.level + row.held >= want.most then return math.max(1, want['until'] - now) end
  elseif row.held + want.amount > want.most then
    return 1
  end
end

local function state_of(want, row)
  if want.kind == 'rate' then
    return {text(math.max(0, row.level)), text((want.most - row.level) * 60 / want.most)}
  elseif want.kind == 'budget' then
    return {text(math.max(0, want.most - row.level - row.held)), text(math.max(0, want['until'] - now))}
  end
  return {text(math.max(0, want.most - row.held)), '0'}
end

if action == 'settle' then
  finish(ARGV[5], given)
  return ''
end
if action == 'renew' then
  for _, grant in ipairs(given) do redis.call('ZADD', ends, 'XX', now + lasts, grant) end
  return ''
end

for _, grant in ipairs(redis.call('ZRANGEBYSCORE', ends, '-inf', text(now))) do finish(grant, nil) end
local rows, refused, wait, states = {}, nil, nil, {}
for number, want in ipairs(given) do rows[number] = row_of(want) end
for number, want in ipairs(given) do
  if not refused then
    wait = wait_of(want, rows[number])
    if wait then refused = number end
  end
end
if not refused then
  for number, want in ipairs(given) do
    local row = rows[number]
    if want.kind == 'rate' then
      row.level = row.level - math.min(want.amount, want.most)
    else
      row.held = row.held + want.amount
    end
    save(row)
  end
  redis.call('HSET', wanted, ARGV[5], ARGV[4])
  redis.call('ZADD', ends, text(now + lasts), ARGV[5])
end
for number, want in ipairs(given) do states[number] = state_of(want, rows[number]) end
return cjson.encode({refused = refused or 0, wait = text(wait or 0), states = states})
""")


class RedisLimits:
    """Keeps limits in the Redis server at `url`, see `SharedLimits`; all times are those of its clock.

    The server should keep what it is told (``appendonly yes``) and evict nothing (``maxmemory-policy
    noeviction``), or budgets are forgotten.

    Args:
        url: ``redis://[user:password@]host[:port][/database]``. No log, error or repr shows a password in it.
        timeout: seconds for one use of the server.
        prefix: how the keys in the database begin.
        ahead: seconds that are added to the server's clock, for tests.

    Raises:
        BadCall: this is no such URL.
        MissingExtra: coredis is not installed; raised by importing this module.
    """

    def __init__(
        self, url: str, *, timeout: float = 2.0, prefix: str = "ultra-limits", ahead: float = 0.0
    ) -> None:
        self._server = RedisServer(url, timeout)
        self._prefix = f"{prefix}:{FORMAT}:"
        self.ahead = ahead

    async def take(self, wants: Sequence[Want]) -> Decision:
        """See `SharedLimits.take`."""
        grant = new_id()
        reply: Any = json.loads(await self._run("take", [structs.asdict(want) for want in wants], grant))
        states = {
            want.name: LimitState(left=float(left), reset=float(reset))
            for want, (left, reset) in zip(wants, reply["states"], strict=True)
        }
        if reply["refused"]:
            refused = wants[reply["refused"] - 1].name
            return Decision(refused=refused, retry_after=float(reply["wait"]), states=states)
        return Decision(grant=grant, states=states)

    async def settle(self, grant: str, used: Mapping[str, float]) -> None:
        """See `SharedLimits.settle`."""
        await self._run("settle", dict(used), grant)

    async def renew(self, grants: Sequence[str]) -> None:
        """See `SharedLimits.renew`."""
        await self._run("renew", list(grants), "")

    async def keep_connected(self, *, task_status: TaskStatus | None = None) -> None:
        """Keep connections open until cancelled; see `KeepsConnections`."""
        await self._server.keep_connected(task_status=task_status)

    async def aclose(self) -> None:
        """Do nothing: what is held open belongs to `keep_connected`."""

    async def _run(self, action: str, given: Any, grant: str) -> bytes:  # noqa: ANN401 - any JSON
        args = [action, str(GRANT_SECONDS), str(self.ahead), json.dumps(given), grant]
        try:
            found: Any = await self._server.run(_SCRIPT, [self._prefix], args)
        except Exception as error:
            # The network's errors in exception groups, coredis's, and those of bytes that are no reply.
            raise LimitsUnavailable(f"{self._server.where}: {first_error(error)}") from error
        return bytes(found)
