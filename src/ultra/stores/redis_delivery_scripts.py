"""The notices of the journal in Redis: scripts, as those of its runs.

The keys, behind the prefix of the journal:

- ``notice:ID``: a hash; its field ``sum`` is its checksum.
- ``notices``: a sorted set of those whose run has ended, by the time from which they are due.
- ``waiting:RUN``: the others of a run, which its end moves there; ``notices-waiting``: a sorted set of all of
  these, by the time at which they were added.
"""

from __future__ import annotations

from typing import Final

from ultra.stores.journal_redis_scripts import journal_script

__all__ = ["ADD_DELIVERY", "SETTLE_DELIVERY", "TAKE_DELIVERIES"]

ADD_DELIVERY: Final = journal_script("""
local id, run = ARGV[2], ARGV[3]
redis.call('HSET', p .. 'notice:' .. id, 'run', run, 'url', ARGV[4], 'attempts', ARGV[5], 'sum', ARGV[6])
local state = redis.call('HGET', p .. 'run:' .. run, 'state')
if state and not is_open(state) then
  redis.call('ZADD', p .. 'notices', text(now), id)
else
  redis.call('SADD', p .. 'waiting:' .. run, id)
  redis.call('ZADD', p .. 'notices-waiting', text(now), id)
end
""")
"""Keep a notice; it is due once its run has ended."""

TAKE_DELIVERIES: Final = journal_script("""
local limit, hold, orphaned, taken = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), {}
local since = text(now - orphaned)
for _, id in ipairs(redis.call('ZRANGEBYSCORE', p .. 'notices-waiting', '-inf', since, 'LIMIT', 0, 100)) do
  local run = fields(p .. 'notice:' .. id, 'run')[1]
  if run and redis.call('EXISTS', p .. 'run:' .. run) == 1 then
    redis.call('ZADD', p .. 'notices-waiting', text(now), id)
  else
    redis.call('ZREM', p .. 'notices-waiting', id)
    redis.call('UNLINK', p .. 'notice:' .. id, p .. 'waiting:' .. (run or ''))
  end
end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', p .. 'notices', '-inf', text(now), 'LIMIT', 0, limit)) do
  local notice = fields(p .. 'notice:' .. id, 'run', 'url', 'attempts', 'sum')
  if notice[1] then
    redis.call('ZADD', p .. 'notices', text(now + hold), id)
    table.insert(taken, {id, notice[1], notice[2] or '', notice[3] or '', notice[4] or ''})
  else
    redis.call('ZREM', p .. 'notices', id)
  end
end
return taken
""")
"""Return notices that are due, which nobody else gets for some time; drop those whose run never came."""

SETTLE_DELIVERY: Final = journal_script("""
local id, again_in = ARGV[2], optional(ARGV[3])
if again_in and redis.call('EXISTS', p .. 'notice:' .. id) == 1 then
  redis.pcall('HINCRBY', p .. 'notice:' .. id, 'attempts', 1)
  redis.call('ZADD', p .. 'notices', text(now + tonumber(again_in)), id)
else
  redis.call('ZREM', p .. 'notices', id)
  redis.call('DEL', p .. 'notice:' .. id)
end
""")
"""Drop a notice, or let it be due again."""
