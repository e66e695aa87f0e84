-- Extends the time of a session that is still there: of one that ended or got a new id, nothing may be kept longer.
-- KEYS: session, [what goes along (see along.lua)]. ARGV: policy, absolute time in ms or '', what goes along.
local s = redis.call('HMGET', KEYS[1], '@until', '@created', '@capped', '@rev')
if not s[4] then return {0} end
local kept = keep(KEYS[1], ARGV[1], ARGV[2], s)
along(ARGV[3], KEYS[1], nil, kept)
return {1, kept}
