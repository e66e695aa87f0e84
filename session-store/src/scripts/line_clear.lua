-- A change of one line of a cart, as nearly every one is: it adds to the line or sets it, and creates no session. cart.lua says the same
-- for all that a change may be, with the same KEYS, and the same ARGV but for those that create (10, 11 and 14), which are left out here: an argument
-- costs as much as a field. On the way that most take nothing here is a function, since each one is
-- made anew at every call and costs as much as a command does.
-- This part is line_sealed.lua where carts are encrypted. Behind it stand line_look.lua, which looks at the session, then keep.lua, along.lua
-- and line_extend.lua, for when its time is to be set, and line.lua.
local call, KEYS, ARGV = redis.call, KEYS, ARGV
local bind, names
local session = KEYS[2 + ARGV[3]]
local s = session and call('HMGET', session, '@rev', '@owner', '@expiry', '@until')
