-- Extends the time of a session that is still there: of one that ended or got a new id, nothing may be kept longer.
-- KEYS: session. ARGV: policy, absolute time in ms or ''.
local s = redis.call('HMGET', KEYS[1], '@until', '@created', '@capped', '@rev')
if not s[4] then return {0} end
return {1, keep(KEYS[1], ARGV[1], ARGV[2], s)}
