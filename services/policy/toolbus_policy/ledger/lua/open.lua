-- Replace the lost counters with the rebuilt ones, if the caller still has the rebuild lock.
-- KEYS: book, lock. ARGV: the lock's token, the new epoch. Returns 1, or 0 without the lock. If the
-- client sends the script a second time, that returns 1 as well.

local holder = redis.call('GET', KEYS[2])
if holder ~= ARGV[1] then
  local opened = not holder and redis.call('HGET', KEYS[1], 'epoch') == ARGV[2]
  return opened and 1 or 0
end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'epoch', ARGV[2], 'tick', 0)
redis.call('DEL', KEYS[2])
return 1
