-- The script with which session-store commits what a request changed, as it stood on 2026-11-25 (merging, in_parts, keep, along, commit).
-- A copy, so that the library may change its scripts without a benchmark that breaks, and figures of different days compare.
-- Stands before the scripts that need it.
-- Merges lines (sku, quantity, ...) of an anonymous cart and the tokens that it remembers into a user's, each unit of quantity once,
-- however often this runs. The user's: cart, what was merged into it before (one field per source), tokens that it remembers.
-- `how`: policy, TTL in ms, lines at most, quantity at most, sources to remember, tokens to remember.
-- Returns the revision of the user's cart, and how many units found no room.
local function merge(source, lines_there, tokens_there, how, cart, merged_before, tokens)
  local policy, ttl, lines_max, quantity_max, sources_max, tokens_max =
    string.match(how, '^(%a+) (%d+) (%d+) (%d+) (%d+) (%d+)$')
  lines_max, quantity_max = tonumber(lines_max), tonumber(quantity_max)
  local meta = redis.call('HGET', cart, '@') or '0 0 0'
  local revision, lines, count = string.match(meta, '^(%d+) (%d+) (%d+)$')
  revision, lines, count = tonumber(revision), tonumber(lines), tonumber(count)

  local merged = {}
  for quantity, sku in string.gmatch(redis.call('HGET', merged_before, source) or '', '(%d+) ([^\n]+)\n') do
    merged[sku] = tonumber(quantity)
  end

  local dropped, changed = 0, false
  for i = 1, #lines_there, 2 do
    local sku, there = lines_there[i], tonumber(lines_there[i + 1])
    local more = there - (merged[sku] or 0)
    if more > 0 then
      local before = tonumber(redis.call('HGET', cart, sku) or '0') or 0
      local wanted = before + more
      if before > 0 and policy == 'max' then wanted = math.max(before, there) end
      if before > 0 and policy == 'keep' and not merged[sku] then
        -- The user's own quantity stands, also against what this source gets later.
        wanted, there = before, math.max(there, quantity_max)
      end
      local after = math.max(math.min(wanted, quantity_max), before)
      if before == 0 and lines >= lines_max then after = before end
      dropped = dropped + wanted - after
      if after > before then
        redis.call('HSET', cart, sku, after)
        if before == 0 then lines = lines + 1 end
        count = count + after - before
        changed = true
      end
    end
    -- Of two logins at once one may have read the cart earlier: what the other has merged stays marked.
    merged[sku] = math.max(there, merged[sku] or 0)
  end

  if changed then
    revision = revision + 1
    redis.call('HSET', cart, '@', revision .. ' ' .. lines .. ' ' .. count)
  end
  if redis.call('EXISTS', cart) == 1 then redis.call('PEXPIRE', cart, ttl) end
  if #lines_there > 0 then
    if not redis.call('HGET', merged_before, source) and redis.call('HLEN', merged_before) >= tonumber(sources_max) then
      local oldest, age
      local all = redis.call('HGETALL', merged_before)
      for i = 1, #all, 2 do
        local at = tonumber(string.match(all[i + 1], '^%d+')) or 0
        if not age or at < age then oldest, age = all[i], at end
      end
      redis.call('HDEL', merged_before, oldest)
    end
    local marks = {tostring(revision) .. '\n'}
    for sku, quantity in pairs(merged) do marks[#marks + 1] = quantity .. ' ' .. sku .. '\n' end
    redis.call('HSET', merged_before, source, table.concat(marks))
    redis.call('PEXPIRE', merged_before, ttl)
  end

  -- What was sent before the login may be sent again after it.
  local seen, fresh, width = redis.call('GET', tokens) or '', {}, 0
  for mark in string.gmatch(tokens_there, '[^ ]+ ') do
    width = #mark
    if not string.find(seen, mark, 1, true) then fresh[#fresh + 1] = mark end
  end
  if #fresh > 0 then
    seen = string.sub(table.concat(fresh) .. seen, 1, width * tonumber(tokens_max))
    redis.call('SET', tokens, seen, 'PX', ttl)
  end
  return revision, dropped
end

-- The same with an anonymous cart and its tokens as they are in the store; KEYS[to] is the first of the user's three.
local function merge_keys(from_cart, from_tokens, to, how)
  local all, lines = redis.call('HGETALL', from_cart), {}
  for i = 1, #all, 2 do
    if string.sub(all[i], 1, 1) ~= '@' then
      lines[#lines + 1] = all[i]
      lines[#lines + 1] = all[i + 1]
    end
  end
  local source, tokens_there = string.match(from_cart, '{(.-)}'), redis.call('GET', from_tokens) or ''
  local _, dropped = merge(source, lines, tokens_there, how, KEYS[to], KEYS[to + 1], KEYS[to + 2])
  return dropped
end
-- Stands before the scripts that need it.
-- Calls a command with the arguments first to last of a list, 1000 at a time: Lua unpacks no more than some 8000 at once, and an even
-- number parts no field from its value.
local function in_parts(command, key, list, first, last)
  for i = first, last, 1000 do
    redis.call(command, key, unpack(list, i, math.min(i + 999, last)))
  end
end
-- Stands before the scripts that need it.
-- How long a session is kept is reckoned here alone, by the store's clock: the one by which it also expires keys.
local function now_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function digits(number) return string.format('%.0f', number) end

-- Ten years: larger ones overflow in some stores.
local TTL_MAX_MS = 315360000000

-- Sets the time to live that the policy asks for, never beyond the absolute end, and tells it in ms; zero or less when the time
-- has passed, and the session is gone then. `absolute`: ms from the session's beginning, '' for none; the earlier of two ends
-- counts. `s` holds @until, @created and @capped of the session.
local function keep(key, policy, absolute, s)
  local kind, ttl, last = string.sub(policy, 1, 1), tonumber(string.sub(policy, 2)), tonumber(s[1] or '')
  if absolute ~= '' then
    local latest = (tonumber(s[2] or '') or now_ms()) + tonumber(absolute)
    if not last or latest < last then
      last = latest
      redis.call('HSET', key, '@until', digits(last))
    end
  end
  if kind == 'a' then ttl = ttl - now_ms() end
  if last then
    local left = last - now_ms()
    if left <= ttl then
      ttl = left
      -- No touch can extend it any more.
      if not s[3] then redis.call('HSET', key, '@capped', 1) end
    elseif s[3] then
      redis.call('HDEL', key, '@capped')
    end
  end
  ttl = math.min(ttl, TTL_MAX_MS)
  redis.call('PEXPIRE', key, digits(ttl))
  return ttl
end
-- Stands before the scripts that need it, behind keep.lua.
-- Puts a session, which is kept for so many ms, on the list of its user's, a sorted set by the time of its end. Those whose
-- time is over leave it. Returns how many more than `most` it has then: whoever hears of it looks which of them are alive.
local function list_session(list, tag, former, kept, most)
  local now = now_ms()
  redis.call('ZREMRANGEBYSCORE', list, '-inf', digits(now))
  if former then redis.call('ZREM', list, former) end
  -- The list hears of a touch only when one is due, so that it must believe in the session for longer than that.
  local listed = math.floor(kept + kept / 16)
  redis.call('ZADD', list, digits(now + listed), tag)
  if redis.call('PTTL', list) < listed then redis.call('PEXPIRE', list, digits(listed)) end
  local over = redis.call('ZCARD', list) - most
  -- Bounded even when nobody looks.
  if over > 3 * most + 64 then redis.call('ZREMRANGEBYRANK', list, 0, over - 3 * most - 65) end
  return math.max(over, 0)
end

-- What goes along when the time of a session is set. `how`: `s` notes when it was seen, `l` when its user logged in, `c` and a
-- TTL in ms keeps its cart as long, `u` and a number puts it on the list of so many sessions of its user, of which it returns
-- how many are too many. The keys of cart and
-- list are the last of KEYS, in this order. `former`: the key that the session had before.
local function along(how, session, former, kept)
  if how == '' or kept <= 0 then return 0 end
  if string.find(how, 's', 1, true) then redis.call('HSET', session, '@seen', digits(now_ms())) end
  if string.find(how, 'l', 1, true) then redis.call('HSET', session, '@login', digits(now_ms())) end
  local most, cart_ttl, last = string.match(how, 'u(%d+)'), string.match(how, 'c(%d+)'), #KEYS
  local over = 0
  if most then
    local tag = function(key) return key and string.match(key, '{(.-)}') end
    over = list_session(KEYS[last], tag(session), tag(former), kept, tonumber(most))
    last = last - 1
  end
  if cart_ttl then redis.call('PEXPIRE', KEYS[last], cart_ttl) end
  return over
end
-- Applies the changed fields of one request to a session that still exists.
-- KEYS: session, [anonymous cart of the session, its tokens,
--       [the cart of the user who logs in, what was merged into it before, its tokens]], [what goes along (see along.lua)].
-- ARGV: commit token, policy, absolute time in ms or '', 'delta' or 'replace', grace in ms,
--       what becomes of the cart: '' nothing, a number to drop it when it was merged at this revision, or how to merge it (see merging.lua),
--       the field whose value must not have changed or '', that value behind a '=' or '' for none, what goes along,
--       number of arguments that set (field, value, ...), those, then the fields to remove.
local s = redis.call('HMGET', KEYS[1], '@until', '@created', '@capped', '@rev', '@tok', '@ended')
if not s[4] then
  if s[6] then return {2} end
  return {0}
end
local seen = s[5] or ''
if string.find(seen, ARGV[1], 1, true) then return {1, tonumber(s[4]), redis.call('PTTL', KEYS[1])} end
if ARGV[7] ~= '' then
  local current = redis.call('HGET', KEYS[1], ARGV[7])
  if (current and '=' .. current or '') ~= ARGV[8] then return {8, current} end
end
local dropped = 0
if string.find(ARGV[6], ' ', 1, true) then
  -- The cart of a session that got an owner meanwhile is the owner's.
  if not redis.call('HGET', KEYS[1], '@owner') then dropped = merge_keys(KEYS[2], KEYS[3], 4, ARGV[6]) end
  redis.call('PEXPIRE', KEYS[2], ARGV[5])
  redis.call('PEXPIRE', KEYS[3], ARGV[5])
elseif ARGV[6] ~= '' then
  -- The cart was merged into the user's at this revision. What was added since must be merged first.
  local meta = redis.call('HGET', KEYS[2], '@') or '0'
  if string.match(meta, '^%d+') ~= ARGV[6] then return {5} end
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
redis.call('HSET', KEYS[1], '@rev', revision, '@tok', string.sub(ARGV[1] .. ' ' .. seen, 1, 8 * (#ARGV[1] + 1)))
local kept = keep(KEYS[1], ARGV[2], ARGV[3], s)
return {1, revision, kept, dropped, along(ARGV[9], KEYS[1], nil, kept)}
