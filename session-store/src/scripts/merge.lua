-- Merges the lines of an anonymous cart, which is in another slot, into a user's.
-- KEYS: the user's cart, what was merged into it before, the tokens that it remembers.
-- ARGV: source, how to merge (see merging.lua), tokens that the anonymous cart remembers, then the lines.
local lines = {}
for i = 4, #ARGV do lines[#lines + 1] = ARGV[i] end
local revision, dropped = merge(ARGV[1], lines, ARGV[3], ARGV[2], KEYS[1], KEYS[2], KEYS[3])
if not revision then return {11} end
return {1, revision, dropped}
