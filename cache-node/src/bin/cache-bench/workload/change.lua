-- The script with which session-store commits the fields that a request changed and leaves the session's time as it is, as it stood on
-- 2026-11-26 (change_within, change, and that the revision is the answer).
-- A copy, so that the library may change its scripts without a benchmark that breaks, and figures of different days compare.
-- Before change.lua, where the session's time is left as it is: hardly any of it has passed. Behind it stands nothing.
local call, key, ARGV = redis.call, KEYS[1], ARGV
local s, last = call('HMGET', key, '@tok', '@rev'), #ARGV
local seen = s[2] and s[1]
-- The commit of a request that changed fields and nothing else, as nearly every one does: commit.lua says the same for all that a
-- request may change. Nothing here is a function, since each one is made anew at every call and costs as much as a command does; and what is
-- done is answered with a number alone, the new revision, since a list costs as much again.
-- Before it stands change_extend.lua or change_within.lua.
-- KEYS: session. ARGV: the tokens that the session remembered when the caller read it or '', the revision and the tokens that it has from then
-- on, this commit's first, the field whose value must not have changed, that value behind a '=' or '-' for none, or '' where nothing is
-- compared, number of arguments that set (field, value, ...), those, then the fields to remove.
local revision, tokens, set = ARGV[2], ARGV[3], 6 + ARGV[6]
-- Each commit leaves its token: while they are the same and the session is there, nothing is other than the caller has read it, and nothing
-- need be looked at. The revision alone would not do: of a primary that was lost and of the replica in its place two commits may have the
-- same one. Nor would the tokens: they stay under an id that was given up for another.
if seen ~= ARGV[1] then
  revision = call('HGET', key, '@rev')
  if not revision then
    if call('HEXISTS', key, '@ended') == 1 then return {2} end
    return {0}
  end
  local mark = string.match(tokens, '^[^ ]+ ')
  seen = seen or ''
  if string.find(seen, mark, 1, true) then return {1, tonumber(revision), call('PTTL', key)} end
  if ARGV[5] ~= '' then
    local current = call('HGET', key, ARGV[4])
    if (current and '=' .. current or '-') ~= ARGV[5] then return {8, current} end
  end
  revision, tokens = revision + 1, string.sub(mark .. seen, 1, 8 * #mark)
end

call('HSET', key, '@rev', revision, '@tok', tokens, unpack(ARGV, 7, set))
if set < last then call('HDEL', key, unpack(ARGV, set + 1, last)) end
-- A number is answered as one.
revision = revision + 0
return revision
