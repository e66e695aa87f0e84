-- Moves a record that cannot be read aside, and puts an empty session in its place, so that the visitor keeps the way to the cart.
-- KEYS: session, its place in quarantine.
-- ARGV: time in quarantine in ms, time in ms for which a session is not moved again, policy or '' for no new session,
--       absolute time in ms or '', then field, value, ... of the new session.
local kind = redis.call('TYPE', KEYS[1]).ok
if kind == 'none' then return {0} end
local now = now_ms()
if kind == 'hash' then
  -- It ended since it was read, and nothing may live under its id again.
  if redis.call('HEXISTS', KEYS[1], '@ended') == 1 then return {0} end
  -- Another request was faster: what is there now is the empty session.
  local clean = tonumber(redis.call('HGET', KEYS[1], '@clean') or '')
  if clean and now - clean < tonumber(ARGV[2]) then return {0} end
end
redis.call('RENAME', KEYS[1], KEYS[2])
redis.call('PEXPIRE', KEYS[2], ARGV[1])
if ARGV[3] ~= '' then
  local created = digits(now)
  redis.call('HSET', KEYS[1], '@rev', 1, '@created', created, '@clean', created, '@expiry', ARGV[3], unpack(ARGV, 5, #ARGV))
  keep(KEYS[1], ARGV[3], ARGV[4], {nil, created})
end
return {1}
