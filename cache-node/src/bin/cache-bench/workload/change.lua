-- The script with which session-store commits the fields that a request set where it removed none and leaves the session's time as it is, as it
-- stood on 2026-11-26, in the evening (CHANGE_PLAIN of `scripts.rs`).
-- A copy, so that the library may change its scripts without a benchmark that breaks, and figures of different days compare.
-- Before change_within.lua and all that is behind it: the same for a commit that sets fields, removes none and compares none, as nearly every one of
-- them does. Each argument costs the store as much as a field does, and a list of two answers more than one answer.
-- KEYS: session. ARGV: the tokens that the session remembered when the caller read it, the revision and the tokens that it has from then on, this
-- commit's first, then what is set (field, value, ...). The answer is that revision, or that of the others.
local call, key, ARGV = redis.call, KEYS[1], ARGV
if call('HGET', key, '@tok') == ARGV[1] then
  call('HSET', key, '@rev', ARGV[2], '@tok', ARGV[3], unpack(ARGV, 4))
  return ARGV[2]
end
ARGV = {ARGV[1], ARGV[2], ARGV[3], '', '', #ARGV - 3, unpack(ARGV, 4)}
-- Before change.lua, where the session's time is left as it is: hardly any of it has passed. Where others have
-- changed the session since, change_told.lua is behind what it does, and tells what they may have chosen.
local call, key, ARGV = redis.call, KEYS[1], ARGV
local seen, last = call('HGET', key, '@tok'), #ARGV
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
-- same one. What has ended or was given up for another id has no tokens.
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
call('HSET', key, '@rev', revision, '@tok', tokens, unpack(ARGV, 7, set))
if set < last then call('HDEL', key, unpack(ARGV, set + 1, last)) end
-- A number is answered as one.
revision = revision + 0
return {1, revision, call('PTTL', key), 0, 0, call('HGET', key, '@expiry')}
end

call('HSET', key, '@rev', revision, '@tok', tokens, unpack(ARGV, 7, set))
if set < last then call('HDEL', key, unpack(ARGV, set + 1, last)) end
-- A number is answered as one.
revision = revision + 0
return revision
