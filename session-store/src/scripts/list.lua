-- Puts a session, which is in another slot, on the list of its user's.
-- KEYS: list. ARGV: tag of the session, the tag that it had before or '', ms for which it is kept, sessions at most.
local former = ARGV[2] ~= '' and ARGV[2] or nil
return {1, list_session(KEYS[1], ARGV[1], former, tonumber(ARGV[3]), tonumber(ARGV[4]))}
