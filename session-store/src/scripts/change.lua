-- The commit of a request that changed fields and nothing else, as nearly every one does: commit.lua says the same for all that a
-- request may change. Nothing here is a function, since each one is made anew at every call and costs as much as a command does; and what is
-- done is answered with a number alone, the new revision, since a list costs as much again.
-- Before it stands change_extend.lua or change_within.lua.
-- KEYS: session. ARGV: the revision at which the caller has read the session or '', the tokens that it remembers from then on, this commit's
-- first, the field whose value must not have changed, that value behind a '=' or '-' for none, or '' where nothing is compared, number of
-- arguments that set (field, value, ...), those, then the fields to remove.
local tokens, set = ARGV[2], 5 + ARGV[5]
if revision ~= ARGV[1] then
  -- What the caller knows of tokens and value may be old: at the same revision it is what is there, and nothing need be looked at.
  if not revision then
    if call('HEXISTS', key, '@ended') == 1 then return {2} end
    return {0}
  end
  local mark, seen = string.match(tokens, '^[^ ]+ '), call('HGET', key, '@tok') or ''
  if string.find(seen, mark, 1, true) then return {1, tonumber(revision), call('PTTL', key)} end
  if ARGV[4] ~= '' then
    local current = call('HGET', key, ARGV[3])
    if (current and '=' .. current or '-') ~= ARGV[4] then return {8, current} end
  end
  tokens = string.sub(mark .. seen, 1, 8 * #mark)
end

revision = revision + 1
call('HSET', key, '@rev', revision, '@tok', tokens, unpack(ARGV, 6, set))
if set < last then call('HDEL', key, unpack(ARGV, set + 1, last)) end
