-- Return what `reserve` would return for one call, and the state of its limits; change nothing.
-- KEYS and ARGV are those of `reserve`, with exactly one call, and 'preview' as the third argument.
-- Returns 'epoch' if the counters are lost; else the answer of `reserve` for the call, per budget
-- {spent, reserved, resets at s}, per rate what is left of it, and per loop limit the number of equal
-- calls within its time.

if not known_counters(ARGV[1], ARGV[2]) then return 'epoch' end

local call = calls[1]
local answer = over_loop(call) or over_budget(call) or over_rate(call) or {'ok'}
local budgets, rates, loops = {}, {}, {}

for i, b in ipairs(call[5]) do
  local l = level(KEYS[b[1]])
  local resets = turn(l, KEYS[b[1]], periods[b[4]]) or 0
  budgets[i] = {l.spent, l.reserved, resets}
end

for i, r in ipairs(call[6]) do
  local used = math.max(tat(KEYS[r[1]]), now_us) - now_us
  rates[i] = math.floor((r[3] - used) * r[2] / r[3])
end

for i, p in ipairs(call[7]) do
  loops[i] = 0
  for _, at in ipairs(redis.call('LRANGE', KEYS[p[1]], 0, p[2] - 1)) do
    if tonumber(at) + p[3] > now_us then loops[i] = loops[i] + 1 end
  end
end

return {answer, budgets, rates, loops}
