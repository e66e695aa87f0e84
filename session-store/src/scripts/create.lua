-- Creates a session. A taken id is reported, never overwritten.
-- KEYS: session, [what goes along (see along.lua)].
-- ARGV: commit token, policy, absolute time in ms or '', what goes along, then field, value, ...
local s = redis.call('HMGET', KEYS[1], '@rev', '@tok')
if s[1] then
  -- The answer to an earlier attempt of this very commit was lost.
  if string.find(s[2] or '', ARGV[1], 1, true) then return {1, tonumber(s[1]), redis.call('PTTL', KEYS[1])} end
  return {3}
end
if redis.call('EXISTS', KEYS[1]) == 1 then return {3} end
in_parts('HSET', KEYS[1], ARGV, 5, #ARGV)
local created = digits(now_ms())
redis.call('HSET', KEYS[1], '@rev', 1, '@tok', ARGV[1] .. ' ', '@created', created, '@expiry', ARGV[2])
local kept = keep(KEYS[1], ARGV[2], ARGV[3], {nil, created})
return {1, 1, kept, 0, along(ARGV[4], KEYS[1], nil, kept)}
