-- Shared by the ledger's scripts: levels are read once per script, changed here, written once.
-- KEYS[1] is the book, a hash {epoch, tick} that identifies the counters' generation; KEYS[2] is
-- `{customer}:epoch:calls`, and every counter that a record names is in the same hash slot.
-- A level is a hash {window, spent, reserved, debt}, integers in micro-dollars or in calls. The level
-- of a rolling period has {span, reserved, debt} and, for each part n of the period, a field b<n>
-- with the amount spent in it. The time is that of the Valkey server.

local clock = redis.call('TIME')
local now_us = clock[1] * 1000000 + clock[2]
local now = tonumber(clock[1])
local prefix = string.sub(KEYS[2], 1, -6)

-- Return whether the counters have the expected generation and at least the tick already seen.
local function known_counters(epoch, least)
  local book = redis.call('HMGET', KEYS[1], 'epoch', 'tick')
  return book[1] == epoch and tonumber(book[2] or 0) >= tonumber(least)
end

local function next_tick()
  return redis.call('HINCRBY', KEYS[1], 'tick', 1)
end

local levels = {}

local function level(key)
  local found = levels[key]
  if not found then
    local raw = redis.call('HMGET', key, 'window', 'spent', 'reserved', 'debt', 'span')
    found = {
      window = tonumber(raw[1] or 0), spent = tonumber(raw[2] or 0),
      reserved = tonumber(raw[3] or 0), debt = tonumber(raw[4] or 0),
      span = tonumber(raw[5] or 0), parts = {}, changed = false, spending = false,
    }
    levels[key] = found
  end
  return found
end

-- A reservation counts in the period of the second at which it was made.
local function charge(l, at, amount)
  if l.span > 0 then
    local part = math.floor(at / l.span)
    l.parts[part] = (l.parts[part] or 0) + amount
  elseif at >= l.window then
    l.spent = math.max(0, l.spent + amount)
  end
  l.changed, l.spending = true, true
end

-- Write the levels that changed; only the reserved amount if the spent one is unchanged.
local function write_levels()
  for key, l in pairs(levels) do
    if l.changed and not l.spending then
      redis.call('HSET', key, 'reserved', string.format('%d', l.reserved))
    elseif l.changed then
      local reserved, debt = string.format('%d', l.reserved), string.format('%d', l.debt)
      if l.span > 0 then
        redis.call('HSET', key, 'span', string.format('%d', l.span),
          'reserved', reserved, 'debt', debt)
        for part, amount in pairs(l.parts) do
          redis.call('HINCRBY', key, string.format('b%d', part), string.format('%d', amount))
        end
      else
        redis.call('HSET', key, 'window', string.format('%d', l.window),
          'spent', string.format('%d', l.spent), 'reserved', reserved, 'debt', debt)
      end
    end
  end
end

-- A record is `state|second|amount|counters|about`. State d: open, perhaps dispatched. State u:
-- charged as unknown. State h was used before 0.1 for a call not yet dispatched; it is read as d.
-- Counters are joined with commas; each begins with $ when it counts money, with # for calls.
local function parse(record)
  local state, at, amount, names, about = string.match(record, '^(%a)|(%d+)|(%d+)|([^|]*)|(.*)$')
  local counters = {}
  for kind, name in string.gmatch(names, '([$#])([^,]+)') do
    counters[#counters + 1] = {key = prefix .. name, money = kind == '$'}
  end
  return state, tonumber(at), tonumber(amount), counters, about
end
