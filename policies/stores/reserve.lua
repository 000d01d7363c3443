-- Hold every ask of an order, or none. The rule is `grant` in base.py, in other words.
-- KEYS: the hold, the index of holds, then the counter of each ask.
-- ARGV: id, owner, now, output, choices, input tokens, most to hold, memo, then for each ask:
--       slot, since, step, ceiling, base, per_output, most, stretch, expires_at.
-- Answers {1, output, cap, amounts..., used and held of each...}
--      or {0, number refusing, their places..., used and held of each..., then place, start, amount of each slot...}.

local RIGID, SHRINK, CLAMP = 0, 1, 2
local FIRST, FIELDS = 8, 9

local now = tonumber(ARGV[3])
local output = tonumber(ARGV[4])
local count = #KEYS - 2
local asks = {}
local refusing = {}
local refuses = false
local cap = output

for i = 1, count do
  local at = FIRST + (i - 1) * FIELDS
  local ask = {
    key = KEYS[i + 2],
    slot = tonumber(ARGV[at + 1]),
    since = tonumber(ARGV[at + 2]),
    step = tonumber(ARGV[at + 3]),
    ceiling = tonumber(ARGV[at + 4]),
    base = tonumber(ARGV[at + 5]),
    per_output = tonumber(ARGV[at + 6]),
    most = tonumber(ARGV[at + 7]),
    stretch = tonumber(ARGV[at + 8]),
    expires_at = tonumber(ARGV[at + 9]),
  }
  ask.used, ask.held, ask.slots = state(ask.key, ask.slot, ask.since, ask.step)
  asks[i] = ask
end

for i, ask in ipairs(asks) do
  if ask.stretch == CLAMP and ask.ceiling >= 0 and ask.per_output > 0 then
    local room = ask.ceiling - ask.used - ask.held - ask.base
    if room < weighed(0, ask.per_output, ask.most) then
      local fits = 0
      if room > 0 then
        fits = quotient(room * MICRO, ask.per_output)
      end
      if fits < 1 then
        refusing[i] = true
        refuses = true
      else
        cap = math.min(cap, fits)
      end
    end
  end
end

local least_output = cap
for i, ask in ipairs(asks) do
  ask.amount = weighed(ask.base, ask.per_output, math.min(cap, ask.most))
  if ask.ceiling >= 0 then
    local room = ask.ceiling - ask.used - ask.held
    if ask.amount > room and not refusing[i] then
      if ask.stretch == SHRINK and ask.per_output > 0 and room >= weighed(ask.base, ask.per_output, 1) then
        ask.amount = room
        least_output = math.min(least_output, quotient((room - ask.base) * MICRO, ask.per_output))
      else
        refusing[i] = true
        refuses = true
      end
    end
  end
end

if refuses then
  local places, states, slots = {}, {}, {}
  for i, ask in ipairs(asks) do
    states[#states + 1] = ask.used
    states[#states + 1] = ask.held
    if refusing[i] then
      places[#places + 1] = i - 1
      for _, slot in ipairs(ask.slots) do
        slots[#slots + 1] = i - 1
        slots[#slots + 1] = slot[1]
        slots[#slots + 1] = slot[2]
      end
    end
  end
  local answer = { 0, #places }
  for _, part in ipairs({ places, states, slots }) do
    for _, number in ipairs(part) do
      answer[#answer + 1] = number
    end
  end
  return answer
end

local answer = { 1, least_output, cap }
local lines = {}
for i, ask in ipairs(asks) do
  move(ask.key, 0, ask.amount, ask.expires_at, now)
  answer[#answer + 1] = ask.amount
  lines[i] = ask.key .. '\t' .. whole(ask.amount) .. '\t' .. ARGV[FIRST + i * FIELDS]
end
for _, ask in ipairs(asks) do
  answer[#answer + 1] = ask.used
  answer[#answer + 1] = ask.held + ask.amount
end
local held_output = math.min(least_output * tonumber(ARGV[5]), tonumber(ARGV[7]))
redis.call('HSET', KEYS[1], 'owner', ARGV[2], 'at', ARGV[3], 'input', ARGV[6], 'output', whole(held_output),
  'choices', ARGV[5], 'memo', ARGV[8], 'lines', table.concat(lines, '\n'))
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[1])
return answer
