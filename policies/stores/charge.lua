-- Add amounts to counters without a hold; a batch that has been charged changes nothing.
-- KEYS: the batch, then the counters. ARGV: now, seconds to remember the batch, then amount, expires_at of each.

if not redis.call('SET', KEYS[1], '1', 'NX', 'EX', ARGV[2]) then
  return 0
end
for i = 2, #KEYS do
  local at = 2 + (i - 2) * 2
  move(KEYS[i], tonumber(ARGV[at + 1]), 0, tonumber(ARGV[at + 2]), tonumber(ARGV[1]))
end
return 1
