-- Puts a session, which is in another slot, on the list of its user's, and keeps the user's cart as long.
-- KEYS: list, cart. ARGV: tag of the session, the tag that it had before or '', ms for which it is kept, sessions at most,
--       TTL of the cart in ms or ''.
local former = ARGV[2] ~= '' and ARGV[2] or nil
local over = list_session(KEYS[1], ARGV[1], former, tonumber(ARGV[3]), tonumber(ARGV[4]))
if ARGV[5] ~= '' then redis.call('PEXPIRE', KEYS[2], ARGV[5]) end
return {1, over}
