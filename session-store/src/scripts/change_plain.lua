-- Before change_within.lua and all that is behind it: the same for a commit that sets fields, removes none and compares none, as nearly every one of
-- them does. Each argument costs the store as much as a field does, and a list of two answers more than one answer.
-- KEYS: session. ARGV: the tokens that the session remembered when the caller read it, the revision and the tokens that it has from then on, this
-- commit's first, then what is set (field, value, ...). The answer is that revision, or that of the others.
local call, key, ARGV = redis.call, KEYS[1], ARGV
if call('HGET', key, '@tok') == ARGV[1] then
  if call('HSET', key, '@rev', ARGV[2], '@tok', ARGV[3], unpack(ARGV, 4)) > 0 and call('HEXISTS', key, '@ended') == 1 then
    -- As change_set.lua has it.
    call('HDEL', key, '@rev', '@tok')
    return {2}
  end
  return ARGV[2]
end
ARGV = {ARGV[1], ARGV[2], ARGV[3], '', '', #ARGV - 3, unpack(ARGV, 4)}
