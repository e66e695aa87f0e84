-- The second of two steps of a new id: the old one ends, if it is what was copied. Of a primary that was lost and of the replica in its place two
-- commits may have the same revision, and two changes of a cart: so the session's tokens are compared as well, and of the cart, which has nothing
-- that two histories do not share, all that is in it.
-- KEYS: old session, its cart, its cart tokens. ARGV: the tag of the new session, revision of the session, its tokens, grace in ms, what the
-- cart tokens are or '', then the cart (field, value, ...).
local s = redis.call('HMGET', KEYS[1], '@rev', '@ended', '@tok')
if not s[1] then
  -- The answer to an earlier attempt of this very step was lost.
  if s[2] == ARGV[1] then return {1} end
  if s[2] then return {2} end
  return {0}
end
if s[1] ~= ARGV[2] or (s[3] or '') ~= ARGV[3] or (redis.call('GET', KEYS[3]) or '') ~= ARGV[5] then return {5} end
local cart, copied = redis.call('HGETALL', KEYS[2]), {}
if #cart ~= #ARGV - 5 then return {5} end
for i = 6, #ARGV, 2 do copied[ARGV[i]] = ARGV[i + 1] end
for i = 1, #cart, 2 do
  if copied[cart[i]] ~= cart[i + 1] then return {5} end
end
redis.call('HDEL', KEYS[1], '@rev', '@tok')
redis.call('HSET', KEYS[1], '@ended', ARGV[1])
for i = 1, 3 do redis.call('PEXPIRE', KEYS[i], ARGV[4]) end
return {1}
