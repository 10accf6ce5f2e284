-- Claim expired reservations for half a minute, so that only one replica settles each of them.
-- KEYS: book, calls, due. ARGV: expected epoch, least tick, maximum number of calls, and the time in
-- ms before which a call must be due.
-- Returns rid, record, rid, record, ...; 'lost' if the counters are lost.
-- Records of calls charged as unknown a day ago are deleted.

if not known_counters(ARGV[1], ARGV[2]) then return 'lost' end

local CLAIM_MS = 30000
local now_ms = math.floor(now_us / 1000)
local rids = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', math.min(now_ms, tonumber(ARGV[4])), 'LIMIT', 0, ARGV[3])
local answer = {}
for _, rid in ipairs(rids) do
  local record = redis.call('HGET', KEYS[2], rid)
  if not record or string.sub(record, 1, 1) == 'u' then
    redis.call('HDEL', KEYS[2], rid)
    redis.call('ZREM', KEYS[3], rid)
  else
    redis.call('ZADD', KEYS[3], now_ms + CLAIM_MS, rid)
    answer[#answer + 1], answer[#answer + 2] = rid, record
  end
end
return answer
