-- Extends the time of a session that is still there: of one that ended or got a new id, nothing may be kept longer. Its own policy
-- counts, which another request may have changed since the caller read it.
-- KEYS: session, [what goes along (see along.lua)]. ARGV: policy of a session without one, absolute time in ms or '', what goes
-- along, 'due' (nothing is written before a touch is due) or '', the owner that the session is expected to have, '' for none and
-- '*' for any. Answers with the ms for which it is kept, and whether this extended it.
local s = redis.call('HMGET', KEYS[1], '@until', '@created', '@capped', '@rev', '@expiry', '@owner')
if not s[4] then return {0} end
if ARGV[5] ~= '*' and ARGV[5] ~= (s[6] or '') then return {4} end
local policy = s[5] or ARGV[1]
if ARGV[4] == 'due' then
  local left, idle = redis.call('PTTL', KEYS[1]), tonumber(string.sub(policy, 2))
  -- As `ExpiryPolicy::touch_interval_ms` has it.
  local interval = math.min(math.floor(idle / 16), 3600000)
  if s[3] or string.sub(policy, 1, 1) == 'a' or left >= idle - interval then return {1, left, 0} end
end
local kept = keep(KEYS[1], policy, ARGV[2], s)
along(ARGV[3], KEYS[1], nil, kept)
return {1, kept, 1}
