-- Mark reservations as handed over: from now on a missing outcome is charged, not refunded.
-- KEYS: calls. ARGV: rids.

local found = redis.call('HMGET', KEYS[1], unpack(ARGV))
local changed = {}
for i, record in ipairs(found) do
  if record and string.sub(record, 1, 1) == 'h' then
    changed[#changed + 1] = ARGV[i]
    changed[#changed + 1] = 'd' .. string.sub(record, 2)
  end
end
if #changed > 0 then redis.call('HSET', KEYS[1], unpack(changed)) end
return #changed / 2
