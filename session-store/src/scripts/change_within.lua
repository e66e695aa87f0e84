-- Before change.lua, where the session's time is left as it is: hardly any of it has passed. Behind it stands nothing.
local call, key, ARGV = redis.call, KEYS[1], ARGV
local s, last = call('HMGET', key, '@tok', '@rev'), #ARGV
local seen = s[2] and s[1]
