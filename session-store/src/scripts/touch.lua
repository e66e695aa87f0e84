-- Extends the time of a session that is still there: of one that ended or got a new id, nothing may be kept longer.
-- KEYS: session. ARGV: TTL in ms.
if redis.call('HEXISTS', KEYS[1], '@rev') == 0 then return {0} end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return {1}
