"""The changes of the journal in Redis: scripts, so that all of a change is made at once.

The keys, behind the prefix of the journal:

- ``run:ID``: a hash, the record of a run and who holds it; its field ``sum`` is the checksum of the request,
  ``sum:KEY`` that of an answer. ``events:ID``: a stream; the id of an event is its `seq` plus one; its second
  field is its checksum. ``answers:ID``: a hash, the paid answers. Earlier versions write no checksums.
- ``runs``, ``owner:NAME``: sorted sets of all runs, and of those of one owner, by the order of acceptance.
- ``free``, ``held``: sorted sets of the runs that have not ended: those that nobody holds, by the order of
  acceptance; those that somebody holds, by the time until which. ``ended``: those that have, by that time.
- ``key:DIGEST``: the run of an idempotency key. ``number``, ``bytes``: counters.
- Of notices and batches: see `redis_delivery_scripts.py` and `batches_redis.py`.
- ``changes``: a stream of what was written last, for those who wait; it is cut.

A field or a key may be damaged. The scripts that look at many runs then go on with the others.

Consumer groups of streams are no use here: what a consumer that has lost its entry
writes would not be refused.
"""

from __future__ import annotations

from typing import Final

from ultra.stores.redis_connection import Script

__all__ = [
    "ADD",
    "ANSWER",
    "ANSWER_KEYS",
    "APPEND",
    "CANCEL",
    "CLAIM",
    "DELETE",
    "END_DAMAGED",
    "FIELDS",
    "GET_ANSWER",
    "LIST",
    "PRUNE",
    "READ",
    "RELEASE",
    "RENEW",
    "journal_script",
]

FIELDS: Final = (
    *("spec", "owner", "key", "tags", "state", "created", "ended", "code", "message", "events", "bytes"),
    *("leases", "cancelling", "sum"),
)
"""The fields of a run that make its record, in the order in which scripts return them behind its id."""

_COMMON: Final = """
local p = KEYS[1]
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6 + tonumber(ARGV[1])

local function text(number) return string.format('%.17g', number) end

-- What may be absent comes as '0', or as '1' and the value.
local function optional(given) if string.sub(given, 1, 1) == '1' then return string.sub(given, 2) end end

-- The fields of a hash; where another thing stands under the key, what decodes to nothing.
local function fields(key, ...)
  local found = redis.pcall('HMGET', key, ...)
  if found.err then
    found = {}
    for place = 1, select('#', ...) do found[place] = '' end
  end
  return found
end

local function record(id)
  local found = fields(p .. 'run:' .. id, FIELDS)
  if not found[1] and redis.call('EXISTS', p .. 'run:' .. id) == 0 then return false end
  table.insert(found, 1, id)
  return found
end

local function number_of(id)
  local number = fields(p .. 'run:' .. id, 'number')[1]
  return number and (tonumber(number) or 0)
end

local function is_open(state) return state == 'queued' or state == 'running' end

local function has_lease(id, holder, number)
  local found = fields(p .. 'run:' .. id, 'state', 'holder', 'leases')
  return is_open(found[1]) and found[2] == holder and found[3] == number
end

-- What was evicted, against the rules, must not be in the way of the other runs.
local function forget_missing(id)
  if number_of(id) then return false end
  redis.call('ZREM', p .. 'free', id)
  redis.call('ZREM', p .. 'held', id)
  return true
end

local function hold(id, holder, lease)
  redis.call('HSET', p .. 'run:' .. id, 'holder', holder)
  redis.call('ZREM', p .. 'free', id)
  redis.call('ZADD', p .. 'held', text(now + lease), id)
end

local function tell(id, seq)
  redis.call('XADD', p .. 'changes', 'MAXLEN', '~', 1000, '*', 'run', id, 'seq', seq)
end

-- A counter that is damaged starts again.
local function add(size)
  if type(redis.pcall('INCRBY', p .. 'bytes', size)) == 'table' then redis.call('SET', p .. 'bytes', size) end
end

local function grow(id, size)
  redis.call('HINCRBY', p .. 'run:' .. id, 'bytes', size)
  add(size)
end

local function insert(id, owner, spec, tags, digest, name, created, leases, sum)
  local key, number = p .. 'run:' .. id, redis.call('INCR', p .. 'number')
  redis.call('HSET', key, 'number', number, 'spec', spec, 'tags', tags, 'state', 'queued', 'created', created,
    'events', 0, 'bytes', 0, 'leases', leases, 'sum', sum)
  grow(id, #spec + #tags)
  redis.call('ZADD', p .. 'runs', number, id)
  if owner then
    redis.call('HSET', key, 'owner', owner)
    redis.call('ZADD', p .. 'owner:' .. owner, number, id)
  end
  if digest ~= '' then
    redis.call('HSET', key, 'digest', digest, 'key', name)
    redis.call('SET', p .. 'key:' .. digest, id)
  end
  return number
end

-- Events stand from ARGV[first] on, as seq, event and checksum; state may be nil: the run goes on.
local function write(id, first, state, code, message)
  local key, known, size = p .. 'run:' .. id, nil, 0
  known = tonumber(redis.call('HGET', key, 'events'))
  for place = first, #ARGV, 3 do
    local seq = tonumber(ARGV[place])
    if seq >= known then
      redis.call('XADD', p .. 'events:' .. id, string.format('%d-0', seq + 1), 'e', ARGV[place + 1], 's',
        ARGV[place + 2])
      known, size = known + 1, size + #ARGV[place + 1]
    end
  end
  redis.call('HSET', key, 'state', state or 'running', 'events', known)
  grow(id, size)
  if state then
    redis.call('HSET', key, 'ended', text(now))
    if code then redis.call('HSET', key, 'code', code) end
    if message then redis.call('HSET', key, 'message', message) end
    redis.call('HDEL', key, 'holder')
    redis.call('ZREM', p .. 'free', id)
    redis.call('ZREM', p .. 'held', id)
    redis.call('ZADD', p .. 'ended', text(now), id)
    for _, notice in ipairs(redis.call('SMEMBERS', p .. 'waiting:' .. id)) do
      redis.call('ZADD', p .. 'notices', text(now), notice)
      redis.call('ZREM', p .. 'notices-waiting', notice)
    end
    redis.call('DEL', p .. 'waiting:' .. id)
  end
  tell(id, known - 1)
end

local function remove(id)
  local key = p .. 'run:' .. id
  local found = fields(key, 'owner', 'digest', 'bytes')
  redis.call('ZREM', p .. 'runs', id)
  redis.call('ZREM', p .. 'ended', id)
  if found[1] then redis.call('ZREM', p .. 'owner:' .. found[1], id) end
  if found[2] then redis.call('DEL', p .. 'key:' .. found[2]) end
  add(-(tonumber(found[3] or 0) or 0))
  redis.call('UNLINK', key, p .. 'events:' .. id, p .. 'answers:' .. id)
  tell(id, -1)
end
""".replace("FIELDS", ", ".join(f"'{name}'" for name in FIELDS))


def journal_script(body: str) -> Script:
    """Return a script that may use what stands in front of it: the prefix `p`, `now`, and the functions."""
    return Script(_COMMON + body)


ADD: Final = journal_script("""
local id, lease, digest = ARGV[2], tonumber(ARGV[3]), ARGV[8]
local holder, owner = optional(ARGV[4]), optional(ARGV[5])
if digest ~= '' then
  local known = redis.call('GET', p .. 'key:' .. digest)
  local found = known and record(known)
  if found then return {0, found} end
end
local number = insert(id, owner, ARGV[6], ARGV[7], digest, ARGV[9], text(now), holder and 1 or 0,
  ARGV[10])
if holder then hold(id, holder, lease) else redis.call('ZADD', p .. 'free', number, id) end
return {1, record(id)}
""")
"""Accept a run, unless its idempotency key is known; return whether it was accepted, and the record."""

RECORD: Final = journal_script("""
local id, answers = ARGV[2], tonumber(ARGV[13])
if number_of(id) then return redis.error_reply('there is a run of this id') end
insert(id, optional(ARGV[4]), ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[3], 1, ARGV[9])
for place = 14, 11 + 3 * answers, 3 do
  redis.call('HSET', p .. 'answers:' .. id, ARGV[place], ARGV[place + 1])
  redis.call('HSET', p .. 'run:' .. id, 'sum:' .. ARGV[place], ARGV[place + 2])
  grow(id, #ARGV[place + 1])
end
write(id, 14 + 3 * answers, optional(ARGV[10]), optional(ARGV[11]), optional(ARGV[12]))
""")
"""Write a run that has ended, with its answers and events."""

CLAIM: Final = journal_script("""
local holder, limit, lease, claims = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), {}
-- Leases that are over, and those that a clock has given which was set back since.
for _, range in ipairs({{'-inf', text(now)}, {'(' .. text(now + tonumber(ARGV[5])), '+inf'}}) do
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', p .. 'held', range[1], range[2], 'LIMIT', 0, 1000)) do
    if not forget_missing(id) then
      redis.call('ZREM', p .. 'held', id)
      redis.call('ZADD', p .. 'free', number_of(id), id)
    end
  end
end
for _, id in ipairs(redis.call('ZRANGE', p .. 'free', 0, limit - 1)) do
  if not forget_missing(id) then
    local key = p .. 'run:' .. id
    if redis.call('TYPE', key).ok == 'hash' then
      redis.pcall('HINCRBY', key, 'leases', 1)  -- one that is damaged stays so, and is found when it is read
      hold(id, holder, lease)
    end
    table.insert(claims, record(id))
  end
end
return claims
""")
"""Give a holder the runs that nobody holds, the oldest first; return their records."""

RENEW: Final = journal_script("""
local lease, held, cancelling = tonumber(ARGV[2]), {}, {}
for place = 3, #ARGV, 3 do
  local id = ARGV[place]
  if has_lease(id, ARGV[place + 1], ARGV[place + 2]) then
    hold(id, ARGV[place + 1], lease)
    table.insert(held, id)
    if redis.call('HEXISTS', p .. 'run:' .. id, 'cancelling') == 1 then table.insert(cancelling, id) end
  end
end
return {held, cancelling}
""")
"""Let leases hold from now on; return the runs that are still held, and those that are to be cancelled."""

RELEASE: Final = journal_script("""
for place = 2, #ARGV, 3 do
  local id = ARGV[place]
  if has_lease(id, ARGV[place + 1], ARGV[place + 2]) then
    redis.call('HDEL', p .. 'run:' .. id, 'holder')
    redis.call('ZREM', p .. 'held', id)
    redis.call('ZADD', p .. 'free', number_of(id), id)
  end
end
""")
"""Give leases up."""

END_DAMAGED: Final = journal_script("""
local id = ARGV[2]
local key, events = p .. 'run:' .. id, p .. 'events:' .. id
if redis.call('TYPE', key).ok ~= 'hash' then redis.call('UNLINK', key) end
if redis.call('TYPE', events).ok ~= 'stream' then redis.call('UNLINK', events) end
if redis.call('ZSCORE', p .. 'ended', id) then return end
redis.call('HSET', key, 'events', ARGV[6])
if not tonumber(redis.call('HGET', key, 'bytes')) then redis.call('HSET', key, 'bytes', 0) end
write(id, 6, optional(ARGV[3]), optional(ARGV[4]), optional(ARGV[5]))
""")
"""End a run whose record cannot be read, also one that is held. The last event stands as in `write`."""

READ: Final = journal_script("""
local key, first, limit, most, found, size = p .. 'events:' .. ARGV[2], ARGV[3], tonumber(ARGV[4]),
  tonumber(ARGV[5]), {}, 0
while #found < limit and size < most do
  local some = redis.call('XRANGE', key, first, '+', 'COUNT', math.min(limit - #found, 16))
  if #some == 0 then break end
  for _, entry in ipairs(some) do
    if size < most then
      table.insert(found, {entry[2][2], entry[2][4] or ''})
      size = size + #entry[2][2]
    end
  end
  first = '(' .. some[#some][1]
end
return found
""")
"""Return events, each with its checksum, from the id of one on, until they are many or large."""

ANSWER_KEYS: Final = journal_script("return redis.call('HKEYS', p .. 'answers:' .. ARGV[2])")
"""Return the keys of the answers of a run."""

GET_ANSWER: Final = journal_script("""
local answer = redis.call('HGET', p .. 'answers:' .. ARGV[2], ARGV[3])
if not answer then return {} end
return {answer, fields(p .. 'run:' .. ARGV[2], 'sum:' .. ARGV[3])[1] or ''}
""")
"""Return one answer of a run, and its checksum; nothing if there is none."""

APPEND: Final = journal_script("""
if not has_lease(ARGV[2], ARGV[3], ARGV[4]) then return 0 end
if not tonumber(redis.call('HGET', p .. 'run:' .. ARGV[2], 'events')) then return 0 end
write(ARGV[2], 8, optional(ARGV[5]), optional(ARGV[6]), optional(ARGV[7]))
return 1
""")
"""Write events, and how the run ended; return 0 if the lease is lost."""

ANSWER: Final = journal_script("""
if not has_lease(ARGV[2], ARGV[3], ARGV[4]) then return 0 end
redis.call('HSET', p .. 'answers:' .. ARGV[2], ARGV[5], ARGV[6])
redis.call('HSET', p .. 'run:' .. ARGV[2], 'sum:' .. ARGV[5], ARGV[7])
grow(ARGV[2], #ARGV[6])
return 1
""")
"""Keep a paid answer; return 0 if the lease is lost."""

CANCEL: Final = journal_script("""
local id = ARGV[2]
local found = redis.call('HMGET', p .. 'run:' .. id, 'state', 'holder', 'events')
if not found[1] then return false end
if is_open(found[1]) then
  redis.call('HSET', p .. 'run:' .. id, 'cancelling', 1)
  local held = found[2] and redis.call('ZSCORE', p .. 'held', id)
  if not (held and tonumber(held) > now) then
    if found[3] ~= ARGV[6] then return 0 end
    write(id, 6, optional(ARGV[3]), optional(ARGV[4]), optional(ARGV[5]))
  end
end
return record(id)
""")
"""End a run that nobody holds, or note that its holder is to end it; return its record.

The last event comes encoded, with its `seq`: 0 is returned where another one was written meanwhile.
"""

DELETE: Final = journal_script("""
local id = ARGV[2]
if not redis.call('ZSCORE', p .. 'ended', id) then
  local held = redis.call('ZSCORE', p .. 'held', id)
  if ARGV[3] ~= '1' or (held and tonumber(held) > now) or redis.call('EXISTS', p .. 'run:' .. id) == 0 then
    return 0
  end
  redis.call('ZREM', p .. 'free', id)
  redis.call('ZREM', p .. 'held', id)
end
remove(id)
return 1
""")
"""Remove a run that has ended, or, where it is said to be damaged, that nobody holds."""

PRUNE: Final = journal_script("""
local seconds, most, removed = optional(ARGV[2]), optional(ARGV[3]), 0
for _, id in ipairs(redis.call('ZRANGE', p .. 'ended', 0, tonumber(ARGV[4]) - 1)) do
  local total = tonumber(redis.call('GET', p .. 'bytes') or 0) or 0
  local ended = tonumber(redis.call('ZSCORE', p .. 'ended', id))
  local too_old = seconds and ended < now - tonumber(seconds)
  if not too_old and not (most and total > tonumber(most)) then break end
  remove(id)
  removed = removed + 1
end
return removed
""")
"""Remove some of the runs that are not to be kept; return how many. 0: there are no more."""

LIST: Final = journal_script("""
local owner, before, limit, wanted, found = optional(ARGV[2]), optional(ARGV[3]), tonumber(ARGV[5]), {}, {}
local top = ARGV[4]
if before then
  local number = number_of(before)
  if not number then return {found, ''} end
  top = '(' .. number
end
for place = 7, #ARGV do wanted[ARGV[place]] = true end
local all, index = #ARGV < 7, p .. (owner and ('owner:' .. owner) or 'runs')
local seen = redis.call('ZRANGE', index, top, '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, math.max(limit, 500))
local size = 0
for _, id in ipairs(seen) do
  if #found == limit then return {found, ''} end
  if size >= tonumber(ARGV[6]) then return {found, ''} end
  if all or wanted[fields(p .. 'run:' .. id, 'state')[1]] then
    local each = record(id)
    if each then
      table.insert(found, each)
      size = size + #(each[2] or '') + #(each[5] or '')
    end
  end
end
if #found == limit or #seen < 500 then return {found, ''} end
return {found, '(' .. redis.call('ZSCORE', index, seen[#seen])}
""")
"""Return runs, the last accepted first, and from where to go on; '' if there are no more."""
