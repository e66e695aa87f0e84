-- The commit of a request that changed fields and nothing else, as nearly every one does: commit.lua says the same for all that a
-- request may change. Nothing here is a function, since each one is made anew at every call and costs as much as a command does.
-- KEYS: session. ARGV: commit token, policy, absolute time in ms or '', the field whose value must not have changed, that value
-- behind a '=' or '-' for none, or '' where nothing is compared, number of arguments that set (field, value, ...), those, then the fields to remove.
local call, key, ARGV = redis.call, KEYS[1], ARGV
local s = call('HMGET', key, '@rev', '@tok', '@until', ARGV[4])
if not s[1] then
  if call('HEXISTS', key, '@ended') == 1 then return {2} end
  return {0}
end
local mark, seen = ARGV[1] .. ' ', s[2] or ''
if string.find(seen, mark, 1, true) then return {1, tonumber(s[1]), call('PTTL', key)} end

-- Read with the rest: one command less.
if ARGV[5] ~= '' and (s[4] and '=' .. s[4] or '-') ~= ARGV[5] then return {8, s[4]} end

local revision, set = s[1] + 1, 6 + ARGV[6]
call('HSET', key, '@rev', revision, '@tok', string.sub(mark .. seen, 1, 8 * #mark), unpack(ARGV, 7, set))
if set < #ARGV then call('HDEL', key, unpack(ARGV, set + 1)) end

-- The same as keep.lua.
local ttl, absolute = string.sub(ARGV[2], 2), ARGV[3]
local kept, last = tonumber(ttl), tonumber(s[3] or '')
if absolute == '' and not last and kept <= 315360000000 and string.sub(ARGV[2], 1, 1) ~= 'a' then
  call('PEXPIRE', key, ttl)
  return {1, revision, kept, 0, 0}
end
