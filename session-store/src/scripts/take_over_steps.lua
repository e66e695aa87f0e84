-- The steps on the side of the session by which it is made of a record that other software has written in another slot; see
-- take_over.rs. Until the last one it is no session: it has no revision.
-- KEYS: session. ARGV: step, token of the one who takes steps; for `hold` ms for which others wait, ms for which the mark is kept; for
--       `place` policy, absolute time in ms or '', then field, value, ...
local s = redis.call('HMGET', KEYS[1], '@rev', '@ended', '@taking', '@placed')
if s[1] or s[2] then return {3} end
local token, until_ms = string.match(s[3] or '', '^(%S+) (%d+)$')

if ARGV[1] == 'hold' then
  local now = now_ms()
  if token and token ~= ARGV[2] and now < tonumber(until_ms) then return {9} end
  redis.call('HSET', KEYS[1], '@taking', ARGV[2] .. ' ' .. digits(now + tonumber(ARGV[3])))
  if not s[4] then redis.call('PEXPIRE', KEYS[1], ARGV[4]) end
  return {1, s[4] and 1 or 0}
end

-- Somebody else has thought this one dead, and holds it now.
if token ~= ARGV[2] then return {9} end
if ARGV[1] == 'place' then
  leave_only(KEYS[1], '@taking')
  local created = digits(now_ms())
  in_parts('HSET', KEYS[1], ARGV, 5, #ARGV)
  redis.call('HSET', KEYS[1], '@created', created, '@expiry', ARGV[3], '@taking', s[3], '@placed', 1)
  return {1, keep(KEYS[1], ARGV[3], ARGV[4], {nil, created})}
end
if not s[4] then return {0} end
if ARGV[1] == 'drop' then return {redis.call('DEL', KEYS[1])} end
redis.call('HSET', KEYS[1], '@rev', 1)
redis.call('HDEL', KEYS[1], '@taking', '@placed')
return {1}
