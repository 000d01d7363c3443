-- End a hold: release its amounts and charge what was used, to the very counters that were held.
-- KEYS: the hold, the index of holds, the ledger, the recent outputs of its key and model, then counters to read.
-- ARGV: id, now, number of figures, the figures used (one a line; missing ones are 0), the ledger line ('' for none),
--       the output of one answer ('' for none), the most ledger lines and recent outputs to keep, for how many seconds the latter,
--       then slot, since, step of each counter to read.
-- Answers {1 if this call ended the hold, used and held of each counter read...}.

local READ_FROM = 5

local now = tonumber(ARGV[2])
local figures = tonumber(ARGV[3])
local after = 3 + figures
local answer = { 0 }

local lines = redis.call('HGET', KEYS[1], 'lines')
if lines then
  answer[1] = 1
  redis.call('DEL', KEYS[1])
  redis.call('ZREM', KEYS[2], ARGV[1])
  local place = 0
  for key, amount, expires_at in string.gmatch(lines, '([^\t\n]+)\t([^\t\n]+)\t([^\t\n]+)') do
    place = place + 1
    local used = place <= figures and tonumber(ARGV[3 + place]) or 0
    move(key, used, -tonumber(amount), tonumber(expires_at), now)
  end
  if ARGV[after + 1] ~= '' then
    redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[after + 3], '*', 'line', ARGV[after + 1])
    if ARGV[after + 2] ~= '' then
      redis.call('LPUSH', KEYS[4], ARGV[after + 2])
      redis.call('LTRIM', KEYS[4], 0, tonumber(ARGV[after + 4]) - 1)
      redis.call('EXPIRE', KEYS[4], ARGV[after + 5])
    end
  end
end

for i = 1, #KEYS - READ_FROM + 1 do
  local at = after + 5 + (i - 1) * 3
  local used, held = state(KEYS[READ_FROM + i - 1], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]))
  answer[#answer + 1] = used
  answer[#answer + 1] = held
end
return answer
