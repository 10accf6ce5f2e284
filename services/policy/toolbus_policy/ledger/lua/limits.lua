-- Decide whether calls are within their limits. Shared by `reserve` and `preview`, which therefore
-- have the same result. ARGV[4] is JSON with the periods and the calls, as `reserve` describes it.

local only_read = ARGV[3] == 'preview'
local packed = cjson.decode(ARGV[4])
local periods, calls = packed[1], packed[2]
local tats, touched = {}, {}

local function tat(key)
  if not tats[key] then tats[key] = tonumber(redis.call('GET', key) or 0) end
  return tats[key]
end

-- Add up a rolling level: every part that overlaps the period counts in full.
local function roll(l, key, span, parts)
  if l.resets then return l.resets end
  if l.span == 0 then l.span, l.changed, l.spending = span, true, true end
  local first, oldest, ended = math.floor(now / span) - parts, nil, {}
  local raw = redis.call('HGETALL', key)
  l.spent = 0
  for i = 1, #raw, 2 do
    local part = tonumber(string.match(raw[i], '^b(%d+)$'))
    if part and part < first then
      ended[#ended + 1] = raw[i]
    elseif part then
      l.spent = l.spent + tonumber(raw[i + 1])
      oldest = math.min(oldest or part, part)
    end
  end
  if #ended > 0 and not only_read then redis.call('HDEL', key, unpack(ended)) end
  l.resets = ((oldest or first + parts) + parts + 1) * span
  return l.resets
end

-- Advance a level to now; return the second at which it resets, or nil if the clocks differ.
local function turn(l, key, period)
  if #period == 2 then return roll(l, key, period[1], period[2]) end
  if now < period[1] then return nil end
  for i = 1, 3 do
    if now < period[i + 1] then
      if period[i] > l.window then
        l.window, l.spent, l.changed, l.spending = period[i], 0, true, true
      end
      return period[i + 1]
    end
  end
end

local function over_budget(call)
  for i, b in ipairs(call[5]) do
    local key = KEYS[b[1]]
    local l = level(key)
    local resets = turn(l, key, periods[b[4]])
    if not resets then return {'clock'} end
    local amount = b[3] == 1 and call[4] or 1
    if l.spent + l.reserved + amount > b[2] then
      return {'budget', i, l.spent, l.reserved, resets}
    end
  end
end

-- GCRA: a burst of `limit`, then one per length/limit.
local function over_rate(call)
  for i, r in ipairs(call[6]) do
    local allowed_at = math.max(tat(KEYS[r[1]]), now_us) + r[4] * r[3] / r[2] - r[3]
    if allowed_at > now_us then return {'rate', i, math.ceil(allowed_at - now_us)} end
  end
end

local function over_loop(call)
  for i, p in ipairs(call[7]) do
    local before = redis.call('LINDEX', KEYS[p[1]], p[2] - 1)
    local again_at = before and tonumber(before) + p[3] or 0
    if again_at > now_us then return {'loop', i, again_at - now_us} end
  end
end

