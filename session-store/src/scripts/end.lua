-- Ends a session: its data and its anonymous cart go, a mark stays for a while so that a slower request learns of it.
-- KEYS: session, anonymous cart, cart tokens. ARGV: grace in ms.
if redis.call('EXISTS', KEYS[1]) == 0 then return {0} end
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
redis.call('HSET', KEYS[1], '@ended', 1)
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return {1}
