-- Reserve at every level and pass every rate and loop limit, or change nothing, for many calls.
-- KEYS: book, calls, due, counted, then the counters.
-- ARGV: expected epoch, least tick, the ms for which a call without a budget is remembered, JSON
-- [periods, calls], and 'again' if the client sends the script a second time. A calendar period is
--   [previous start, start, end, next end] in s; a rolling period is [part length in s, parts].
-- A call is [rid, about, deadline ms, amount,
--   [[counter, limit, 1 if money, period], ...], [[counter, limit, length in us, weight], ...],
--   [[counter, calls, length in us], ...]]: budgets, rates, loops; counters are indexes of KEYS.
-- The weight of a call is 1 in a rate of calls, and its number of tokens in a rate of tokens.
-- Returns 'epoch' if the counters are lost; else the tick, and per call one of
--   {'ok'} | {'budget', which, spent, reserved, resets at s} | {'rate', which, wait us}
--   | {'loop', which, wait us} | {'clock'}.
-- A call is counted once, however often its script arrives: by its record, or by its id in `counted`,
-- a sorted set of ids by the ms at which they are forgotten. The set has the calls without a record,
-- and those of a script sent again: its first copy may arrive after the call has ended.

if not known_counters(ARGV[1], ARGV[2]) then return 'epoch' end

local LATE_MS = 3600000 -- no first copy arrives later: TCP gives up sending after 15 minutes
local now_ms = math.floor(now_us / 1000)
local again = ARGV[5] == 'again'

local records, due, counted = {}, {}, {}

local function add_record(call)
  local names, at = {}, now
  for i, b in ipairs(call[5]) do
    local key = KEYS[b[1]]
    local l = level(key)
    l.reserved, l.changed = l.reserved + (b[3] == 1 and call[4] or 1), true
    names[i] = (b[3] == 1 and '$' or '#') .. string.sub(key, #prefix + 1)
    at = math.max(at, l.window)
  end
  records[#records + 1] = call[1]
  records[#records + 1] = string.format('d|%d|%d|', at, call[4]) .. table.concat(names, ',') .. '|' .. call[2]
  due[#due + 1], due[#due + 2] = string.format('%d', call[3]), call[1]
end

local function accept(call)
  for _, r in ipairs(call[6]) do
    local key = KEYS[r[1]]
    tats[key] = math.max(tats[key], now_us) + r[4] * r[3] / r[2]
    touched[key] = math.ceil(r[3] / 1000)
  end
  for _, p in ipairs(call[7]) do
    redis.call('LPUSH', KEYS[p[1]], string.format('%d', now_us))
    redis.call('LTRIM', KEYS[p[1]], 0, p[2] - 1)
    redis.call('PEXPIRE', KEYS[p[1]], math.ceil(p[3] / 1000))
  end
  if #call[5] > 0 then add_record(call) end
  if again or #call[5] == 0 then
    counted[#counted + 1] = string.format('%d', now_ms + (again and LATE_MS or ARGV[3]))
    counted[#counted + 1] = call[1]
  end
  return {'ok'}
end

local rids = {}
for i, call in ipairs(calls) do rids[i] = call[1] end
local recorded = redis.call('HMGET', KEYS[2], unpack(rids))
local remembered = redis.call('ZMSCORE', KEYS[4], unpack(rids))

local answers, seen = {}, {}
for i, call in ipairs(calls) do
  if recorded[i] or remembered[i] or seen[call[1]] then
    answers[i] = {'ok'}
  else
    seen[call[1]] = true
    answers[i] = over_loop(call) or over_budget(call) or over_rate(call) or accept(call)
  end
end

write_levels()
for key, milliseconds in pairs(touched) do
  redis.call('SET', key, string.format('%d', math.ceil(tats[key])), 'PX', milliseconds * 2)
end
if #records > 0 then
  redis.call('HSET', KEYS[2], unpack(records))
  redis.call('ZADD', KEYS[3], unpack(due))
end
if #counted > 0 then
  redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', now_ms)
  redis.call('ZADD', KEYS[4], unpack(counted))
  redis.call('PEXPIRE', KEYS[4], LATE_MS)
end
return {next_tick(), answers}
