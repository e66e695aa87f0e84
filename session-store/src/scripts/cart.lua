-- One mutation of a cart, counted once.
-- KEYS: cart, remembered tokens, [session that the cart belongs to, [list of its user's sessions]].
-- ARGV: 1 operation, 2 token, 3 tokens to remember, 4 TTL of the tokens in ms, 5 TTL of the cart in ms,
--       6 lines at most, 7 quantity at most, 8 expected owner of the session,
--       9 policy of the session to create, '' when it must exist, 10 token of the creation,
--       11 absolute time of sessions in ms or '', 12 what goes along when the session's time is set (see along.lua),
--       13 number of arguments that create (field, value, ...), those, then sku, quantity, ...
local created_with = tonumber(ARGV[13])
local first = 14 + created_with
-- The session's policy when its time was set, and that time in ms: the cookie follows it.
local create, extended, kept = false, '', 0

if KEYS[3] then
  local s = redis.call('HMGET', KEYS[3], '@until', '@created', '@capped', '@rev', '@owner', '@expiry', '@tok', '@ended')
  if ARGV[9] ~= '' then
    if s[8] or (s[4] and not string.find(s[7] or '', ARGV[10], 1, true)) then return {3} end
    create = not s[4]
    if s[4] then kept = redis.call('PTTL', KEYS[3]) end
  else
    if not s[4] then
      if s[8] then return {2} end
      return {0}
    end
    if (s[5] or '') ~= ARGV[8] then return {4, s[5] or ''} end
    local policy = s[6] or ''
    local idle = tonumber(string.sub(policy, 2))
    local due = idle and string.sub(policy, 1, 1) ~= 'a' and not s[3] and redis.call('PTTL', KEYS[3]) < idle - math.min(idle / 16, 3600000)
    if due or (idle and ARGV[11] ~= '' and not s[1]) then
      kept = keep(KEYS[3], policy, ARGV[11], s)
      if kept <= 0 then return {0} end
      along(ARGV[12], KEYS[3], nil, kept)
      extended = policy
    end
  end
end

local operation, sku = ARGV[1], ARGV[first] or ''
-- Where the cart is in another slot than the session, this is one step and the change of the cart another.
if operation == 'check' then return {1, 0, 0, 0, 0, 0, extended, kept} end
local c = redis.call('HMGET', KEYS[1], '@', sku)
local revision, lines, count = string.match(c[1] or '0 0 0', '^(%d+) (%d+) (%d+)$')
revision, lines, count = tonumber(revision), tonumber(lines), tonumber(count)
local current = tonumber(c[2] or '0') or 0

local seen = redis.call('GET', KEYS[2]) or ''
local mark = ARGV[2] .. ' '
if string.find(seen, mark, 1, true) then return {1, 0, revision, current, lines, count, extended, kept} end

local lines_max, quantity_max = tonumber(ARGV[6]), tonumber(ARGV[7])
local quantity = current
if operation == 'add' or operation == 'set' then
  quantity = tonumber(ARGV[first + 1])
  if operation == 'add' then quantity = quantity + current end
  if quantity > quantity_max then return {7} end
  if quantity > 0 and current == 0 and lines >= lines_max then return {6} end
end

if create then
  local created = digits(now_ms())
  redis.call('HSET', KEYS[3], '@rev', 1, '@tok', ARGV[10] .. ' ', '@created', created, '@expiry', ARGV[9], unpack(ARGV, 14, first - 1))
  kept = keep(KEYS[3], ARGV[9], ARGV[11], {nil, created})
end

local function put(name, before, after)
  if after > 0 then
    redis.call('HSET', KEYS[1], name, after)
    if before == 0 then lines = lines + 1 end
  elseif before > 0 then
    redis.call('HDEL', KEYS[1], name)
    lines = lines - 1
  end
  count = count + after - before
end

if operation == 'clear' then
  redis.call('DEL', KEYS[1])
  lines, count, quantity = 0, 0, 0
elseif operation == 'subtract' then
  for i = first, #ARGV, 2 do
    local before = tonumber(redis.call('HGET', KEYS[1], ARGV[i]) or '0') or 0
    put(ARGV[i], before, math.max(before - tonumber(ARGV[i + 1]), 0))
  end
  quantity = 0
else
  put(sku, current, quantity)
end

-- The revision outlives the lines: a reader must never see it go back.
revision = revision + 1
redis.call('HSET', KEYS[1], '@', revision .. ' ' .. lines .. ' ' .. count)
redis.call('PEXPIRE', KEYS[1], ARGV[5])
redis.call('SET', KEYS[2], string.sub(mark .. seen, 1, #mark * tonumber(ARGV[3])), 'PX', ARGV[4])
return {1, 1, revision, quantity, lines, count, extended, kept}
