-- Applies the changed fields of one request to a session that still exists.
-- KEYS: session, [anonymous cart of the session].
-- ARGV: commit token, TTL in ms, 'delta' or 'replace', grace in ms, expected revision of the cart or '',
--       number of arguments that set (field, value, ...), those, then the fields to remove.
local s = redis.call('HMGET', KEYS[1], '@rev', '@tok', '@ended')
if not s[1] then
  if s[3] then return {2} end
  return {0}
end
local seen = s[2] or ''
if string.find(seen, ARGV[1], 1, true) then return {1, tonumber(s[1])} end
if ARGV[5] ~= '' then
  -- The cart was merged into the user's at this revision. What was added since must be merged first.
  local meta = redis.call('HGET', KEYS[2], '@') or '0'
  if string.match(meta, '^%d+') ~= ARGV[5] then return {5} end
  redis.call('PEXPIRE', KEYS[2], ARGV[4])
end
local first_removed = 7 + tonumber(ARGV[6])
if ARGV[3] == 'replace' then
  local kept = {}
  for i = 7, first_removed - 1, 2 do kept[ARGV[i]] = true end
  for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
    local reserved = string.sub(field, 1, 1) == '@' and string.sub(field, 1, 2) ~= '@@'
    if not reserved and not kept[field] then redis.call('HDEL', KEYS[1], field) end
  end
end
in_parts('HSET', KEYS[1], ARGV, 7, first_removed - 1)
in_parts('HDEL', KEYS[1], ARGV, first_removed, #ARGV)
local revision = tonumber(s[1]) + 1
redis.call('HSET', KEYS[1], '@rev', revision, '@tok', string.sub(ARGV[1] .. ' ' .. seen, 1, 4 * (#ARGV[1] + 1)))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return {1, revision}
