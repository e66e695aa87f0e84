-- The second of two steps of a new id: the old one ends, if nothing has changed since it was copied.
-- KEYS: old session, its cart, its cart tokens. ARGV: the tag of the new session, revision of the session, revision of the cart, grace in ms.
local s = redis.call('HMGET', KEYS[1], '@rev', '@ended')
if not s[1] then
  -- The answer to an earlier attempt of this very step was lost.
  if s[2] == ARGV[1] then return {1} end
  if s[2] then return {2} end
  return {0}
end
local meta = redis.call('HGET', KEYS[2], '@') or '0'
if s[1] ~= ARGV[2] or string.match(meta, '^%d+') ~= ARGV[3] then return {5} end
redis.call('HDEL', KEYS[1], '@rev')
redis.call('HSET', KEYS[1], '@ended', ARGV[1])
for i = 1, 3 do redis.call('PEXPIRE', KEYS[i], ARGV[4]) end
return {1}
