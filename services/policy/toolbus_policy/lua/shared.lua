-- Shared by every ledger script: levels are read once per script, changed here, written once.
-- A level is a hash {window, spent, held, debt}, integers in micro-dollars. Time is the server's.

local clock = redis.call('TIME')
local now_us = clock[1] * 1000000 + clock[2]
local now = tonumber(clock[1])

-- Days since 1970-01-01 to the first day of the month `n` months after that one.
-- Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", days_from_civil.
local function month_start(n)
  local year, month = 1970 + math.floor(n / 12), n % 12 + 1
  if month <= 2 then year = year - 1 end
  local era = math.floor(year / 400)
  local of_era = year - era * 400
  local of_year = math.floor((153 * ((month + 9) % 12) + 2) / 5)
  return era * 146097 + of_era * 365 + math.floor(of_era / 4) - math.floor(of_era / 100) + of_year - 719468
end

-- The number of the present period and the second at which the next one begins.
local function window(period)
  local length = ({second = 1, minute = 60, hour = 3600, day = 86400})[period]
  if length then
    local n = math.floor(now / length)
    return n, (n + 1) * length
  end
  if period == 'week' then -- 1970-01-05 was a Monday
    local n = math.floor((now - 345600) / 604800)
    return n, (n + 1) * 604800 + 345600
  end
  local day = math.floor(now / 86400)
  local n = math.floor(day / 30.436875) + 1
  while month_start(n) > day do n = n - 1 end
  return n, month_start(n + 1) * 86400
end

local levels = {}

local function level(key)
  local found = levels[key]
  if not found then
    local raw = redis.call('HMGET', key, 'window', 'spent', 'held', 'debt')
    found = {
      window = tonumber(raw[1]) or 0, spent = tonumber(raw[2]) or 0,
      held = tonumber(raw[3]) or 0, debt = tonumber(raw[4]) or 0, changed = false,
    }
    levels[key] = found
  end
  return found
end

local function write_levels()
  for key, l in pairs(levels) do
    if l.changed then
      redis.call('HSET', key, 'window', string.format('%d', l.window),
        'spent', string.format('%d', l.spent), 'held', string.format('%d', l.held),
        'debt', string.format('%d', l.debt))
    end
  end
end

-- A record is `state|amount|level key,level key|about`; states: h held, d dispatched, u unknown.
local function parse(record)
  local state, amount, keys, about = string.match(record, '^(%a)|(%d+)|([^|]*)|(.*)$')
  local names = {}
  for key in string.gmatch(keys, '[^,]+') do names[#names + 1] = key end
  return state, tonumber(amount), names, about
end
