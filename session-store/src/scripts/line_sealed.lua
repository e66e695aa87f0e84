-- What line_clear.lua is, where carts are encrypted: the line is all that stands behind what it is bound to, as standing.lua has it.
local call, KEYS, ARGV = redis.call, KEYS, ARGV
local bind, names = ARGV[12], #ARGV - 14
local session = KEYS[2 + ARGV[3]]
local s = session and call('HMGET', session, '@rev', '@owner', '@expiry', '@until', '@bind')
