-- A change of one line of a cart, as nearly every one is: it adds to the line or sets it, and creates no session. cart.lua says the same
-- for all that a change may be, with the same KEYS and ARGV. On the way that most take nothing here is a function, since each one is
-- made anew at every call and costs as much as a command does.
-- This part looks at the session. Behind it stand keep.lua, along.lua and line_extend.lua, for when its time is to be set, and line.lua.
local call, KEYS, ARGV = redis.call, KEYS, ARGV
local session, policy, due = KEYS[2 + ARGV[3]], '', false
local extended, kept = '', 0
if session then
  local s = call('HMGET', session, '@rev', '@owner', '@expiry', '@capped', '@until')
  if not s[1] then
    if call('HEXISTS', session, '@ended') == 1 then return {2} end
    return {0}
  end
  if (s[2] or '') ~= ARGV[9] then return {4, s[2] or ''} end
  policy = s[3] or ''
  local idle = tonumber(string.sub(policy, 2))
  if idle then
    due = ARGV[12] ~= '' and not s[5]
      or not s[4] and string.sub(policy, 1, 1) ~= 'a' and call('PTTL', session) < idle - math.min(idle / 16, 3600000)
  end
end
