-- Before change.lua, where the session's time is left as it is: hardly any of it has passed. Where others have
-- changed the session since, change_told.lua is behind what it does, and tells what they may have chosen.
local call, key, ARGV = redis.call, KEYS[1], ARGV
local seen, last = call('HGET', key, '@tok'), #ARGV
