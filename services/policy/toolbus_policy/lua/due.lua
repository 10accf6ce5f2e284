-- Reservations past their time, claimed for half a minute so that one replica deals with each.
-- KEYS: calls, due. ARGV: most. Returns rid, record, rid, record, ...
-- A record charged as unknown a day ago is forgotten here.

local CLAIM_MS = 30000
local now_ms = math.floor(now_us / 1000)
local rids = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now_ms, 'LIMIT', 0, ARGV[1])
local answer = {}
for _, rid in ipairs(rids) do
  local record = redis.call('HGET', KEYS[1], rid)
  if not record or string.sub(record, 1, 1) == 'u' then
    redis.call('HDEL', KEYS[1], rid)
    redis.call('ZREM', KEYS[2], rid)
  else
    redis.call('ZADD', KEYS[2], now_ms + CLAIM_MS, rid)
    answer[#answer + 1], answer[#answer + 2] = rid, record
  end
end
return answer
