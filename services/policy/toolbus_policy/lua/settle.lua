-- End reservations, each exactly once: settle (held becomes spent), refund, or charge as unknown.
-- KEYS: calls, due. The level keys are in the records; they share the hash tag, hence the slot.
-- ARGV: per call rid, how ('settle', 'refund' or 'unknown'), actual amount.
-- Returns per call 1 when it ended something, 0 when it had ended before.
-- A call charged as unknown leaves a record for a day, so that a late outcome can still correct it.

local DAY_MS = 86400000

local rids = {}
for i = 1, #ARGV, 3 do rids[#rids + 1] = ARGV[i] end
local found = redis.call('HMGET', KEYS[1], unpack(rids))

local answers, ended, kept, later = {}, {}, {}, {}

local function spend(l, reserved, actual)
  l.spent, l.changed = l.spent + actual, true
  if actual > reserved then l.debt = l.debt + actual - reserved end
end

local function finish(i, rid, how, actual)
  local state, amount, keys, about = parse(found[i])
  if how == 'unknown' then
    if state ~= 'd' then return 0 end
    actual = amount
  elseif how == 'refund' then
    actual = 0
  end
  for _, key in ipairs(keys) do
    local l = level(key)
    if state == 'u' then
      l.spent, l.changed = math.max(0, l.spent + actual - amount), true
    else
      l.held = l.held - amount
      spend(l, amount, actual)
    end
  end
  if how == 'unknown' then
    kept[#kept + 1], kept[#kept + 2] = rid, 'u' .. string.sub(found[i], 2)
    later[#later + 1], later[#later + 2] = string.format('%d', now * 1000 + DAY_MS), rid
  else
    ended[#ended + 1] = rid
  end
  return 1
end

local seen = {}
for i, rid in ipairs(rids) do
  if found[i] and not seen[rid] then
    seen[rid] = true
    answers[i] = finish(i, rid, ARGV[i * 3 - 1], tonumber(ARGV[i * 3]))
  else
    answers[i] = 0
  end
end

write_levels()
if #ended > 0 then
  redis.call('HDEL', KEYS[1], unpack(ended))
  redis.call('ZREM', KEYS[2], unpack(ended))
end
if #kept > 0 then
  redis.call('HSET', KEYS[1], unpack(kept))
  redis.call('ZADD', KEYS[2], unpack(later))
end
return answers
