-- The first of two steps of a new id, where both ids are in different slots: the new record, which nobody knows yet.
-- KEYS: new session, its cart, its cart tokens, [what goes along (see along.lua)].
-- ARGV: commit token, policy, absolute time in ms or '', what goes along, revision, TTL of the cart in ms, TTL of its tokens in ms, tokens,
--       number of arguments of the old record (field, value, ...), those, number of those of the cart, those,
--       number of arguments that set (field, value, ...), those, then the fields to remove.
local s = redis.call('HMGET', KEYS[1], '@rev', '@tok', '@expiry')
if s[1] then
  if string.find(s[2] or '', ARGV[1], 1, true) then return {1, tonumber(s[1]), redis.call('PTTL', KEYS[1]), 0, 0, s[3]} end
  return {3}
end
if redis.call('EXISTS', KEYS[1]) == 1 then return {3} end

local at = 9
local function put(key)
  local count = tonumber(ARGV[at])
  in_parts('HSET', key, ARGV, at + 1, at + count)
  at = at + count + 1
  return count > 0
end

put(KEYS[1])
if put(KEYS[2]) and tonumber(ARGV[6]) > 0 then redis.call('PEXPIRE', KEYS[2], ARGV[6]) end
if ARGV[8] ~= '' then
  redis.call('SET', KEYS[3], ARGV[8])
  if tonumber(ARGV[7]) > 0 then redis.call('PEXPIRE', KEYS[3], ARGV[7]) end
end
put(KEYS[1])
in_parts('HDEL', KEYS[1], ARGV, at, #ARGV)
redis.call('HSET', KEYS[1], '@rev', ARGV[5], '@tok', ARGV[1] .. ' ')
-- When the old one ends others may have chosen since the caller has read it.
local times = redis.call('HMGET', KEYS[1], '@until', '@created', '@capped', '@expiry')
local policy = times[4] or ARGV[2]
local kept = keep(KEYS[1], policy, ARGV[3], times)
return {1, tonumber(ARGV[5]), kept, 0, along(ARGV[4], KEYS[1], nil, kept), policy}
