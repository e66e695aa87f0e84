-- One mutation of a cart, counted once.
-- KEYS: cart, the tokens that it remembers, [those before them, where they are our own],
--       [session that the cart belongs to, [list of its user's sessions]].
-- ARGV: 1 operation, 2 token, 3 keys of tokens: 1 with a string of them, as users gave them, or 2 with a set of our own each,
--       4 tokens to remember, 5 TTL of the tokens in ms, 6 TTL of the cart in ms,
--       7 lines at most, 8 quantity at most, 9 expected owner of the session,
--       10 policy of the session to create, '' when it must exist, 11 token of the creation,
--       12 absolute time of sessions in ms or '', 13 what goes along when the session's time is set (see along.lua),
--       14 number of arguments that create (field, value, ...), those, then sku, quantity, ...
-- Where carts are encrypted, standing.lua is before this, the number of names that a line may stand under is behind 14, and before the lines is what
-- the session must say that they are bound to (`@bind`, '' for nothing, '*' where it is another's cart); each is as standing.lua has it.
local created_with, names, bind = tonumber(ARGV[14]), nil, nil
if not created_with then
  created_with, names = string.match(ARGV[14], '^(%d+) (%d+)$')
  created_with, names = tonumber(created_with), tonumber(names)
  bind = ARGV[15 + created_with]
end
local first = 15 + created_with + (names and 1 or 0)
local own, tokens, session = ARGV[3] == '2', KEYS[2], KEYS[2 + ARGV[3]]
-- The session's policy when its time was set, and that time in ms: the cookie follows it.
local create, extended, kept = false, '', 0

if session then
  local s = redis.call('HMGET', session, '@until', '@created', '@capped', '@rev', '@owner', '@expiry', '@tok', '@ended')
  if ARGV[10] ~= '' then
    if s[8] or (s[4] and not string.find(s[7] or '', ARGV[11], 1, true)) then return {3} end
    create = not s[4]
    if s[4] then kept = redis.call('PTTL', session) end
  else
    if not s[4] then
      if s[8] then return {2} end
      return {0}
    end
    if (s[5] or '') ~= ARGV[9] then return {4, s[5] or ''} end
    if bind and bind ~= '*' then
      local bound = redis.call('HGET', session, '@bind') or ''
      if bound ~= bind then return {10, bound} end
    end
    local policy = s[6] or ''
    local idle = tonumber(string.sub(policy, 2))
    local due = idle and string.sub(policy, 1, 1) ~= 'a' and not s[3] and redis.call('PTTL', session) < idle - math.min(idle / 16, 3600000)
    if due or (idle and ARGV[12] ~= '' and not s[1]) then
      kept = keep(session, policy, ARGV[12], s)
      if kept <= 0 then return {0} end
      along(ARGV[13], session, nil, kept)
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
local current, fields, elsewhere = tonumber(c[2] or '0') or 0, nil, nil
if names and sku ~= '' then
  current, fields, elsewhere = standing(KEYS[1], ARGV, first, names)
  if not current then return {11} end
  for i = first + names + 2, #ARGV, names + 2 do
    if not standing(KEYS[1], ARGV, i, names) then return {11} end
  end
end

local function put(at, before, after)
  local there = before > 0 and 1 or 0
  if names then
    there = fields
    if elsewhere then redis.call('HDEL', KEYS[1], unpack(ARGV, at + 3, at + 1 + names)) end
  end
  if after > 0 then
    redis.call('HSET', KEYS[1], ARGV[at], names and after .. ARGV[at + 2] or after)
    lines = lines + 1 - there
  elseif there > 0 then
    redis.call('HDEL', KEYS[1], ARGV[at])
    lines = lines - there
  end
  count = count + after - before
end

-- Nothing but the fields of these lines: what is in the cart stays what it is.
if operation == 'move' then
  local moved = 0
  for i = first, #ARGV, names + 2 do
    local quantity
    quantity, fields, elsewhere = standing(KEYS[1], ARGV, i, names)
    if elsewhere then
      put(i, quantity, quantity)
      moved = moved + 1
    end
  end
  if moved > 0 then redis.call('HSET', KEYS[1], '@', revision .. ' ' .. lines .. ' ' .. count) end
  return {1, 1, revision, moved, lines, count, extended, kept}
end

-- Our own are in a set, which takes the place of the one before it when there are so many in it: it is asked, and not copied as a string is.
-- By its size, since changes with a user's token count for the revision and not for the set; a cart of fewer changes has fewer in it.
local seen, mark, most = '', ARGV[2] .. ' ', tonumber(ARGV[4])
local counted
if own then
  counted = redis.call('SISMEMBER', tokens, ARGV[2]) == 1 or revision >= most and redis.call('SISMEMBER', KEYS[3], ARGV[2]) == 1
else
  seen = redis.call('GET', tokens) or ''
  counted = string.find(seen, mark, 1, true)
end
if counted then return {1, 0, revision, current, lines, count, extended, kept} end

local lines_max, quantity_max = tonumber(ARGV[7]), tonumber(ARGV[8])
local quantity = current
if operation == 'add' or operation == 'set' then
  quantity = tonumber(ARGV[first + 1])
  if operation == 'add' then quantity = quantity + current end
  if quantity > quantity_max then return {7} end
  if quantity > 0 and current == 0 and lines >= lines_max then return {6} end
end

if create then
  local created = digits(now_ms())
  redis.call('HSET', session, '@rev', 1, '@tok', ARGV[11] .. ' ', '@created', created, '@expiry', ARGV[10], unpack(ARGV, 15, 14 + created_with))
  kept = keep(session, ARGV[10], ARGV[12], {nil, created})
end

if operation == 'clear' then
  -- Not deleted and made again: while a slot moves, a key that is not there is another node's.
  for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
    if field ~= '@' then redis.call('HDEL', KEYS[1], field) end
  end
  lines, count, quantity = 0, 0, 0
elseif operation == 'subtract' then
  for i = first, #ARGV, names and names + 2 or 2 do
    local before
    if names then
      before, fields, elsewhere = standing(KEYS[1], ARGV, i, names)
    else
      before = tonumber(redis.call('HGET', KEYS[1], ARGV[i]) or '0') or 0
    end
    put(i, before, math.max(before - tonumber(ARGV[i + 1]), 0))
  end
  quantity = 0
else
  put(first, current, quantity)
end

-- The revision outlives the lines: a reader must never see it go back.
revision = revision + 1
redis.call('HSET', KEYS[1], '@', revision .. ' ' .. lines .. ' ' .. count)
redis.call('PEXPIRE', KEYS[1], ARGV[6])
if own then
  redis.call('SADD', tokens, ARGV[2])
  redis.call('PEXPIRE', tokens, ARGV[5])
  if revision >= most and redis.call('SCARD', tokens) >= most then redis.call('RENAME', tokens, KEYS[3]) end
else
  redis.call('SET', tokens, string.sub(mark .. seen, 1, #mark * most), 'PX', ARGV[5])
end
return {1, 1, revision, quantity, lines, count, extended, kept}
