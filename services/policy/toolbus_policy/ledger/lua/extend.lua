-- Postpone the due times of open reservations; reservations charged as unknown are unchanged.
-- KEYS: book, calls, due, the rebuilder's lock.
-- ARGV: expected epoch, least tick, then per call rid and when it is due (ms).
-- Returns 'ok'; or, if the counters are lost, 'wait' while they are being rebuilt,
-- else 'lost': they are rebuilt from the events, which contain the extended deadlines.

if not known_counters(ARGV[1], ARGV[2]) then
  return redis.call('EXISTS', KEYS[4]) == 1 and 'wait' or 'lost'
end

for i = 3, #ARGV, 2 do
  local record = redis.call('HGET', KEYS[2], ARGV[i])
  local due = redis.call('ZSCORE', KEYS[3], ARGV[i])
  if record and due and string.sub(record, 1, 1) ~= 'u' and tonumber(due) < tonumber(ARGV[i + 1]) then
    redis.call('ZADD', KEYS[3], ARGV[i + 1], ARGV[i])
  end
end
return 'ok'
