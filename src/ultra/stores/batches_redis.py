"""The batches of the journal in Redis.

The keys, behind the prefix of the journal: ``batch:ID``, a hash of its fields in JSON, who has it, and in
the field ``sum`` the checksum of what never changes, which what an earlier version wrote has not;
``lines:ID``; ``batches``, a sorted set of those that have not ended, by the time until which they are held;
``batches-ended``, one of the others, by the time of their end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import structs

from ultra.stores.batch_contract import BATCH_KEPT, Batch
from ultra.stores.checksums import checksum
from ultra.stores.journal_contract import latest_end
from ultra.stores.journal_damage import check_sum, log_damage
from ultra.stores.journal_encoding import Damaged
from ultra.stores.journal_redis_scripts import journal_script

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

__all__ = ["RedisBatches"]

_FIELDS: Final = Batch.__struct_fields__

_BATCH: Final = f"""
local FIELDS = {{{", ".join(f"'{name}'" for name in (*_FIELDS, "sum"))}}}
local function batch(id)
  local found = fields(p .. 'batch:' .. id, unpack(FIELDS))
  if found[1] or redis.call('EXISTS', p .. 'batch:' .. id) == 1 then return found end
  return false
end
"""

_ADD: Final = journal_script(f"""{_BATCH}
local id = ARGV[2]
if not batch(id) then
  for place = 4, #ARGV, 2 do redis.call('HSET', p .. 'batch:' .. id, ARGV[place], ARGV[place + 1]) end
  redis.call('HSET', p .. 'batch:' .. id, 'created', text(now))
  redis.call('SET', p .. 'lines:' .. id, ARGV[3])
  redis.call('ZADD', p .. 'batches', 0, id)
end
return batch(id)
""")
"""Accept a batch, unless there is one of this id; return its fields."""

_GET: Final = journal_script(f"{_BATCH} return batch(ARGV[2])")
"""Return the fields of a batch."""

_LINES: Final = journal_script(f"""{_BATCH}
local lines = redis.pcall('GET', p .. 'lines:' .. ARGV[2])
return {{batch(ARGV[2]), type(lines) == 'string' and lines}}
""")
"""Return a batch, and what its runs are to do."""

_END_DAMAGED: Final = journal_script("""
redis.call('ZREM', p .. 'batches', ARGV[2])
redis.call('ZADD', p .. 'batches-ended', text(now), ARGV[2])
""")
"""Let nobody hold a batch that cannot be read; it is kept as long as any that has ended."""

_HOLD: Final = journal_script(f"""{_BATCH}
local holder, seconds, kept, held = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), {{}}
local ended = redis.call('ZRANGEBYSCORE', p .. 'batches-ended', '-inf', text(now - kept), 'LIMIT', 0, 100)
for _, id in ipairs(ended) do
  redis.call('ZREM', p .. 'batches-ended', id)
  redis.call('UNLINK', p .. 'batch:' .. id, p .. 'lines:' .. id)
end
for _, id in ipairs(redis.call('ZRANGE', p .. 'batches', 0, -1)) do
  local key = p .. 'batch:' .. id
  local held_until = tonumber(redis.call('ZSCORE', p .. 'batches', id))
  local is_free = held_until <= now or held_until > now + tonumber(ARGV[5])
  if redis.call('EXISTS', key) == 0 then
    redis.call('ZREM', p .. 'batches', id)
  elseif is_free or fields(key, 'holder')[1] == holder then
    redis.pcall('HSET', key, 'holder', holder)
    redis.call('ZADD', p .. 'batches', text(now + seconds), id)
    table.insert(held, {{id, batch(id)}})
  end
end
return held
""")
"""Give a holder the batches that nobody else holds; return their fields."""

_UPDATE: Final = journal_script(f"""{_BATCH}
local id, ended = ARGV[2], optional(ARGV[3])
if not batch(id) then return false end
for place = 4, #ARGV, 2 do redis.call('HSET', p .. 'batch:' .. id, ARGV[place], ARGV[place + 1]) end
if ended then
  redis.call('ZREM', p .. 'batches', id)
  redis.call('ZADD', p .. 'batches-ended', ended, id)
end
return batch(id)
""")
"""Change fields of a batch; return all of them."""


class RedisBatches:
    """A `BatchStore` in Redis; `run` runs a script of the journal."""

    def __init__(self, run: Callable[..., Awaitable[Any]]) -> None:
        self._run = run

    async def add(self, batch: Batch, lines: bytes) -> Batch:
        """Accept a batch."""
        fields = {**structs.asdict(batch), "sum": checksum(_fixed(batch), lines)}
        return _batch(await self._run(_ADD, batch.id, lines, *_parts(fields)))

    async def get(self, batch_id: str) -> Batch | None:
        """Return a batch."""
        found = await self._run(_GET, batch_id)
        return None if found is None else _batch(found)

    async def lines(self, batch_id: str) -> bytes:
        """Return what its runs are to do."""
        found, lines = await self._run(_LINES, batch_id)
        if found is None:
            return b""
        if lines is None:
            raise Damaged("the lines of the batch are not there")
        check_sum("the batch", _fields(found).get("sum"), _fixed(_batch(found)), lines)
        return bytes(lines)

    async def hold(self, holder: str, seconds: float) -> list[Batch]:
        """Give `holder` the batches that nobody else holds."""
        held = []
        for name, found in await self._run(_HOLD, holder, seconds, BATCH_KEPT, latest_end(0.0, seconds)):
            try:
                held.append(_batch(found))
            except Damaged as error:
                log_damage("batch", name.decode(errors="replace"), error)
                await self._run(_END_DAMAGED, name)
        return held

    async def update(self, batch_id: str, changes: Mapping[str, Any]) -> Batch | None:
        """Change fields of a batch."""
        ended = changes.get("ended")
        found = await self._run(_UPDATE, batch_id, "0" if ended is None else f"1{ended!r}", *_parts(changes))
        return None if found is None else _batch(found)


def _parts(fields: Mapping[str, Any]) -> list[str | bytes]:
    return [part for name, value in fields.items() for part in (name, msgspec.json.encode(value))]


def _fixed(batch: Batch) -> bytes:
    """Return what never changes of a batch, as bytes: its checksum is of these, and of its lines."""
    return msgspec.json.encode([batch.id, batch.owner, batch.total, batch.concurrency])


def _fields(found: Sequence[Any]) -> dict[str, Any]:
    given = zip((*_FIELDS, "sum"), found, strict=True)
    return {name: msgspec.json.decode(value) for name, value in given if value is not None}


def _batch(found: Sequence[Any]) -> Batch:
    try:
        return msgspec.convert(_fields(found), Batch)
    except (ValueError, TypeError) as error:
        raise Damaged(f"a field of the batch is not what it was: {error}") from error
