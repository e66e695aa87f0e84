-- Before change.lua, where the session is given all of its time. Behind the ARGV of that: policy, absolute time in ms or ''; or the time in ms
-- and '*', where the policy is an idle timeout that a store can take and the caller knows of no absolute end. The third of `s` is the session's own
-- policy, where that counts and not the caller's.
local call, key, ARGV = redis.call, KEYS[1], ARGV
local s, last = call('HMGET', key, '@tok', '@until'), #ARGV - 2
local seen, policy, absolute = s[1], ARGV[last + 1], ARGV[last + 2]
