-- Gives a session a new id: the new record, the end of the old one and the move of the cart are one step.
-- KEYS: old session, new session, old cart, new cart, old cart tokens, new cart tokens,
--       [the cart of the user who logs in, what was merged into it before, its tokens], [what goes along (see along.lua)].
-- ARGV: commit token, policy, absolute time in ms or '', grace in ms, what becomes of the cart: '' to move it, or how to merge it (see merging.lua),
--       what goes along, number of arguments that set (field, value, ...), those, then the fields to remove.
local old = redis.call('HMGET', KEYS[1], '@rev', '@ended')
local new = redis.call('HMGET', KEYS[2], '@rev', '@tok', '@expiry')
if new[1] then
  if string.find(new[2] or '', ARGV[1], 1, true) then return {1, tonumber(new[1]), redis.call('PTTL', KEYS[2]), 0, 0, new[3]} end
  return {3}
end
if redis.call('EXISTS', KEYS[2]) == 1 then return {3} end
if not old[1] then
  if old[2] then return {2} end
  return {0}
end

local first_removed = 8 + tonumber(ARGV[7])
-- What is encrypted moves with what only those who have the keys can say of the new session: `@bind`.
local is_bound, record = false, redis.call('HGETALL', KEYS[1])
for i = 8, first_removed - 1, 2 do is_bound = is_bound or ARGV[i] == '@bind' end
for i = 2, is_bound and 0 or #record, 2 do
  if string.byte(record[i]) == 1 then return {11} end
end

local dropped = 0
if ARGV[5] ~= '' then
  -- The cart of a session that got an owner meanwhile is the owner's.
  local refused
  if not redis.call('HGET', KEYS[1], '@owner') then dropped, refused = merge_keys(KEYS[3], KEYS[5], 7, ARGV[5]) end
  if not dropped then return {refused} end
  redis.call('PEXPIRE', KEYS[5], ARGV[4])
else
  local cart = redis.call('HGETALL', KEYS[3])
  for i = 1, is_bound and 0 or #cart, 2 do
    if string.byte(cart[i]) == 1 then return {11} end
  end
  local left = redis.call('PTTL', KEYS[3])
  in_parts('HSET', KEYS[4], cart, 1, #cart)
  if #cart > 0 and left > 0 then redis.call('PEXPIRE', KEYS[4], left) end
  if redis.call('EXISTS', KEYS[5]) == 1 then redis.call('RENAME', KEYS[5], KEYS[6]) end
end
redis.call('PEXPIRE', KEYS[3], ARGV[4])

in_parts('HSET', KEYS[2], record, 1, #record)
in_parts('HSET', KEYS[2], ARGV, 8, first_removed - 1)
in_parts('HDEL', KEYS[2], ARGV, first_removed, #ARGV)
local revision = tonumber(old[1]) + 1
redis.call('HSET', KEYS[2], '@rev', revision, '@tok', ARGV[1] .. ' ')
-- The absolute end is copied with the rest: a new id does not put it off.
-- So is when it ends, which others may have chosen since the caller has read it.
local times = redis.call('HMGET', KEYS[2], '@until', '@created', '@capped', '@expiry')
local policy = times[4] or ARGV[2]
local kept = keep(KEYS[2], policy, ARGV[3], times)

-- Requests in flight with the old id go on reading what was there before, and can change nothing.
redis.call('HDEL', KEYS[1], '@rev', '@tok')
redis.call('HSET', KEYS[1], '@ended', string.match(KEYS[2], '{(.-)}'))
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return {1, revision, kept, dropped, along(ARGV[6], KEYS[2], KEYS[1], kept), policy}
