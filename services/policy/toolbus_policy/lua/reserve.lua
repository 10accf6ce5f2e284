-- Reserve money at every level and pass every rate limit, or touch nothing: many calls at once.
-- KEYS: epoch, calls, due, then level and rate keys.
-- ARGV: expected epoch, and as JSON a list of calls, each
--   [rid, about, deadline ms, amount,
--    [[key index, limit, period], ...], [[key index, calls, period length in microseconds], ...]].
-- Returns 'epoch' when the counters are not those we know; else per call one of
--   {'ok'} | {'budget', which, spent, held, resets at s} | {'rate', which, wait us}.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'epoch' end

local tats, touched = {}, {}
local function tat(key)
  if not tats[key] then tats[key] = tonumber(redis.call('GET', key) or 0) end
  return tats[key]
end

local function read_call(told)
  local call = {rid = told[1], about = told[2], due = told[3], amount = told[4], budgets = {}, rates = {}}
  for i, b in ipairs(told[5]) do
    call.budgets[i] = {key = KEYS[b[1]], limit = b[2], period = b[3]}
  end
  for i, r in ipairs(told[6]) do
    call.rates[i] = {key = KEYS[r[1]], calls = r[2], length = r[3]}
  end
  return call
end

local function over_budget(call)
  for i, budget in ipairs(call.budgets) do
    local l = level(budget.key)
    local n, resets = window(budget.period)
    if l.window ~= n then l.window, l.spent, l.changed = n, 0, true end
    if l.spent + l.held + call.amount > budget.limit then
      return {'budget', i, l.spent, l.held, resets}
    end
  end
end

-- GCRA: a burst of `calls`, then one per length/calls.
local function over_rate(call)
  for i, rate in ipairs(call.rates) do
    local step = rate.length / rate.calls
    local allowed_at = math.max(tat(rate.key), now_us) + step - rate.length
    if allowed_at > now_us then return {'rate', i, math.ceil(allowed_at - now_us)} end
  end
end

local calls = {}
for i, told in ipairs(cjson.decode(ARGV[2])) do calls[i] = read_call(told) end

local rids = {}
for i, call in ipairs(calls) do rids[i] = call.rid end
local known = redis.call('HMGET', KEYS[2], unpack(rids))

local answers, records, due = {}, {}, {}
for i, call in ipairs(calls) do
  local refusal = not known[i] and (over_budget(call) or over_rate(call))
  if refusal then
    answers[i] = refusal
  else
    answers[i] = {'ok'}
    if not known[i] then
      for _, rate in ipairs(call.rates) do
        tats[rate.key] = math.max(tats[rate.key], now_us) + rate.length / rate.calls
        touched[rate.key] = math.ceil(rate.length / 1000)
      end
      if #call.budgets > 0 then
        local keys = {}
        for j, budget in ipairs(call.budgets) do
          local l = level(budget.key)
          l.held, l.changed, keys[j] = l.held + call.amount, true, budget.key
        end
        records[#records + 1] = call.rid
        records[#records + 1] = 'h|' .. string.format('%d', call.amount) .. '|' .. table.concat(keys, ',') .. '|' .. call.about
        due[#due + 1] = string.format('%d', call.due)
        due[#due + 1] = call.rid
      end
    end
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
return answers
