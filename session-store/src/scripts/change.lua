-- The commit of a request that changed fields and nothing else, as nearly every one does: commit.lua says the same for all that a
-- request may change. Nothing here is a function, since each one is made anew at every call and costs as much as a command does; and what is
-- done is answered with a number alone, the new revision, since a list costs as much again.
-- Before it stands change_extend.lua or change_within.lua; behind it what else is done where others have changed the session, which is
-- change_policy.lua or change_set.lua and change_told.lua, the end of what begins here, and change_set.lua.
-- KEYS: session. ARGV: the tokens that the session remembered when the caller read it or '', the revision and the tokens that it has from then
-- on, this commit's first, the field whose value must not have changed, that value behind a '=' or '-' for none, or '' where nothing is
-- compared, number of arguments that set (field, value, ...), those, then the fields to remove.
local revision, tokens, set = ARGV[2], ARGV[3], 6 + ARGV[6]
-- Each commit leaves its token: while they are the same and the session is there, nothing is other than the caller has read it, and nothing
-- need be looked at. The revision alone would not do: of a primary that was lost and of the replica in its place two commits may have the
-- same one. What has ended or was given up for another id has no tokens, unless the version before did it: see change_set.lua.
if seen ~= ARGV[1] then
  revision = call('HGET', key, '@rev')
  if not revision then
    if call('HEXISTS', key, '@ended') == 1 then return {2} end
    return {0}
  end
  local mark = string.match(tokens, '^[^ ]+ ')
  seen = seen or ''
  if string.find(seen, mark, 1, true) then return {1, tonumber(revision), call('PTTL', key), 0, 0, call('HGET', key, '@expiry')} end
  if ARGV[5] ~= '' then
    local current = call('HGET', key, ARGV[4])
    if (current and '=' .. current or '-') ~= ARGV[5] then return {8, current} end
  end
  revision, tokens = revision + 1, string.sub(mark .. seen, 1, 7 * #mark)
