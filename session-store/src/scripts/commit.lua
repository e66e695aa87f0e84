-- Applies the changed fields of one request to a session that still exists.
-- KEYS: session, [anonymous cart of the session, its tokens,
--       [the cart of the user who logs in, what was merged into it before, its tokens]], [what goes along (see along.lua)].
-- ARGV: commit token, policy, absolute time in ms or '', 'delta' or 'replace', grace in ms,
--       what becomes of the cart: '' nothing, '=' and what was merged of it, to drop it when it is that still, or how to merge it (see merging.lua),
--       the field whose value must not have changed, that value behind a '=' or '-' for none, or '' where nothing is compared, what goes along,
--       number of arguments that set (field, value, ...), those, then the fields to remove.
local s = redis.call('HMGET', KEYS[1], '@until', '@created', '@capped', '@rev', '@tok', '@ended', '@expiry')
if not s[4] then
  if s[6] then return {2} end
  return {0}
end
local seen = s[5] or ''
if string.find(seen, ARGV[1], 1, true) then return {1, tonumber(s[4]), redis.call('PTTL', KEYS[1]), 0, 0, s[7]} end
if ARGV[8] ~= '' then
  local current = redis.call('HGET', KEYS[1], ARGV[7])
  if (current and '=' .. current or '-') ~= ARGV[8] then return {8, current} end
end
local dropped, becomes = 0, string.sub(ARGV[6], 1, 1)
if becomes == '=' then
  -- What was added since it was merged must be merged first.
  if not is_as_merged(KEYS[2], KEYS[3], string.sub(ARGV[6], 2)) then return {5} end
elseif becomes ~= '' then
  -- The cart of a session that got an owner meanwhile is the owner's.
  local refused
  if not redis.call('HGET', KEYS[1], '@owner') then dropped, refused = merge_keys(KEYS[2], KEYS[3], 4, ARGV[6]) end
  if not dropped then return {refused} end
end
if becomes ~= '' then
  redis.call('PEXPIRE', KEYS[2], ARGV[5])
  redis.call('PEXPIRE', KEYS[3], ARGV[5])
end
local first_removed = 11 + tonumber(ARGV[10])
if ARGV[4] == 'replace' then
  local kept = {}
  for i = 11, first_removed - 1, 2 do kept[ARGV[i]] = true end
  for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
    local reserved = string.sub(field, 1, 1) == '@' and string.sub(field, 1, 2) ~= '@@'
    if not reserved and not kept[field] then redis.call('HDEL', KEYS[1], field) end
  end
end
in_parts('HSET', KEYS[1], ARGV, 11, first_removed - 1)
in_parts('HDEL', KEYS[1], ARGV, first_removed, #ARGV)
local revision = tonumber(s[4]) + 1
redis.call('HSET', KEYS[1], '@rev', revision, '@tok', string.sub(ARGV[1] .. ' ' .. seen, 1, 7 * (#ARGV[1] + 1)))
-- When it ends others may have chosen since the caller has read it: that counts, unless this commit chooses.
local policy = ARGV[11] ~= '@expiry' and s[7] or ARGV[2]
local kept = keep(KEYS[1], policy, ARGV[3], s)
return {1, revision, kept, dropped, along(ARGV[9], KEYS[1], nil, kept), policy}
