-- Keep a note if the one of that name is still at the revision it replaces.
-- KEYS: the latest revision, the notes. ARGV: kind and name, body, the revision it replaces (0: there is none).
-- Answers the note's new revision, or 0 when nothing was changed.

local known = redis.call('HGET', KEYS[2], ARGV[1])
local revision = known and tonumber(string.match(known, '^%d+')) or 0
if revision ~= tonumber(ARGV[3]) then
  return 0
end
revision = redis.call('INCR', KEYS[1])
redis.call('HSET', KEYS[2], ARGV[1], whole(revision) .. ' ' .. ARGV[2])
return revision
