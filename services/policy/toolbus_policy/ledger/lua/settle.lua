-- End each reservation exactly once: settle (reserved becomes spent), refund, or charge as unknown.
-- KEYS: book, calls, due, the rebuilder's lock. The counters are in the records.
-- ARGV: expected epoch, least tick, then per call rid, how ('settle', 'refund' or 'unknown'),
-- actual amount.
-- Returns the tick; or, if the counters are lost, 'wait' while a replica rebuilds them (the rebuild
-- may have read the events before these ends), else 'lost' (the rebuild will include these ends).
-- A call charged as unknown leaves a record for a day, so that a late outcome can still correct it.

if not known_counters(ARGV[1], ARGV[2]) then
  return redis.call('EXISTS', KEYS[4]) == 1 and 'wait' or 'lost'
end

local DAY_MS = 86400000

local rids = {}
for i = 3, #ARGV, 3 do rids[#rids + 1] = ARGV[i] end
local found = redis.call('HMGET', KEYS[2], unpack(rids))

local ended, charged, later = {}, {}, {}

-- The final charge of one counter, given the amount that was reserved in it.
local function final(counter, how, amount, actual)
  if how == 'refund' then return 0 end
  if not counter.money then return 1 end
  return how == 'unknown' and amount or actual
end

local function finish(i, rid, how, actual)
  local state, at, amount, counters = parse(found[i])
  if how == 'unknown' and state == 'u' then return end
  for _, counter in ipairs(counters) do
    local l = level(counter.key)
    local reserved = counter.money and amount or 1
    local spent = final(counter, how, amount, actual)
    if state == 'u' then
      charge(l, at, spent - reserved)
    else
      l.reserved = l.reserved - reserved
      charge(l, at, spent)
    end
    l.debt = l.debt + math.max(0, spent - reserved)
  end
  if how == 'unknown' then
    charged[#charged + 1], charged[#charged + 2] = rid, 'u' .. string.sub(found[i], 2)
    later[#later + 1], later[#later + 2] = string.format('%d', now * 1000 + DAY_MS), rid
  else
    ended[#ended + 1] = rid
  end
end

local seen = {}
for i, rid in ipairs(rids) do
  if found[i] and not seen[rid] then
    seen[rid] = true
    finish(i, rid, ARGV[i * 3 + 1], tonumber(ARGV[i * 3 + 2]))
  end
end

write_levels()
if #ended > 0 then
  redis.call('HDEL', KEYS[2], unpack(ended))
  redis.call('ZREM', KEYS[3], unpack(ended))
end
if #charged > 0 then
  redis.call('HSET', KEYS[2], unpack(charged))
  redis.call('ZADD', KEYS[3], unpack(later))
end
return next_tick()
