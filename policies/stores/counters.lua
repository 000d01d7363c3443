-- What the scripts below share; it is put in front of each of them.
-- A counter is a hash with the fields u (used) and h (held), one for each slot, named "<series>@<slot>".

local MICRO = 1000000

-- Slots beyond its own that a sliding window counts: SLOTS_AHEAD in base.py.
local AHEAD = 5

-- Numbers as Redis takes them: whole, never in scientific notation.
local function whole(number)
  return string.format('%.0f', number)
end

-- Whole-number division. Lua only has doubles: division alone would round where fmod is exact.
local function quotient(a, b)
  return (a - math.fmod(a, b)) / b
end

local function weighed(base, per_output, output)
  local micro = per_output * output
  local tokens = quotient(micro, MICRO)
  if math.fmod(micro, MICRO) > 0 then
    tokens = tokens + 1
  end
  return base + tokens
end

local function counted(key)
  local found = redis.call('HMGET', key, 'u', 'h')
  return tonumber(found[1] or 0), tonumber(found[2] or 0)
end

-- A counter's sums over its window, and (start, amount) of every slot that holds anything.
local function state(key, slot, since, step)
  if step == 0 then
    local used, held = counted(key)
    return used, held, {}
  end
  local series = string.match(key, '^(.*)@')
  local used, held, slots = 0, 0, {}
  for start = since, slot + AHEAD * step, step do
    local u, h = counted(series .. '@' .. whole(start))
    used = used + u
    held = held + h
    if u + h ~= 0 then
      slots[#slots + 1] = { start, u + h }
    end
  end
  return used, held, slots
end

-- Move a counter and let it live until it is of no use: expires_at 0 is for ever, and what is settled later than
-- expected is kept for an hour at least.
local function move(key, used, held, expires_at, now)
  if used ~= 0 then
    redis.call('HINCRBY', key, 'u', whole(used))
  end
  if held ~= 0 then
    redis.call('HINCRBY', key, 'h', whole(held))
  end
  if expires_at > 0 then
    redis.call('EXPIRE', key, whole(math.max(3600, math.ceil(expires_at - now))))
  end
end
