-- Makes a session of a record that other software has written, and removes that record, in one step.
-- KEYS: session, the other record. ARGV: the other record as it was read, policy, absolute time in ms or '', then field, value, ...
if redis.call('EXISTS', KEYS[1]) == 1 then return {3} end
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return {0} end
in_parts('HSET', KEYS[1], ARGV, 4, #ARGV)
local created = digits(now_ms())
redis.call('HSET', KEYS[1], '@rev', 1, '@created', created, '@expiry', ARGV[2])
redis.call('DEL', KEYS[2])
return {1, keep(KEYS[1], ARGV[2], ARGV[3], {nil, created})}
