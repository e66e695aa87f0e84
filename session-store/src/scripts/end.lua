-- Ends a session: its data and its anonymous cart go, a mark stays for a while so that a slower request learns of it.
-- KEYS: session, [anonymous cart, cart tokens, [list of its user's sessions]].
-- ARGV: grace in ms, tag of the user whose session it must be or ''.
if KEYS[4] then redis.call('ZREM', KEYS[4], string.match(KEYS[1], '{(.-)}')) end
local s = redis.call('HMGET', KEYS[1], '@rev', '@owner')
if not s[1] and redis.call('EXISTS', KEYS[1]) == 0 then return {0} end
-- Somebody else has logged in with it since.
if ARGV[2] ~= '' and s[2] ~= ARGV[2] then return {0} end
redis.call('HSET', KEYS[1], '@ended', 1)
leave_only(KEYS[1], '@ended')
if KEYS[2] then redis.call('DEL', KEYS[2], KEYS[3]) end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return {s[1] and 1 or 0}
