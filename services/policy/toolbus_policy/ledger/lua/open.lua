-- Replace the lost counters with the rebuilt ones, if the caller still has the rebuild lock.
-- KEYS: book, lock. ARGV: the lock's token, the new epoch. Returns 1, or 0 without the lock.

if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'epoch', ARGV[2], 'tick', 0)
redis.call('DEL', KEYS[2])
return 1
