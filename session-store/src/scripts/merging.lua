-- Stands before the scripts that need it.
-- Merges lines (sku, quantity, ...) of an anonymous cart and the tokens that it remembers into a user's, each unit of quantity once,
-- however often this runs. The user's: cart, what was merged into it before (one field per source), tokens that it remembers.
-- `how`: policy, TTL in ms, lines at most, quantity at most, sources to remember, tokens to remember; where carts are encrypted, the number of
-- names that a line may stand under, and the lines are as standing.lua has them, which is before this then.
-- Returns the revision of the user's cart, and how many units found no room; nothing, and has done nothing, when a line of it is damaged.
local function merge(source, lines_there, tokens_there, how, cart, merged_before, tokens)
  local policy, ttl, lines_max, quantity_max, sources_max, tokens_max, names =
    string.match(how, '^(%a+) (%d+) (%d+) (%d+) (%d+) (%d+) ?(%d*)$')
  lines_max, quantity_max, names = tonumber(lines_max), tonumber(quantity_max), tonumber(names)
  local step = names and names + 2 or 2
  if names then
    for i = 1, #lines_there, step do
      if not standing(cart, lines_there, i, names) then return nil end
    end
  end
  local meta = redis.call('HGET', cart, '@') or '0 0 0'
  local revision, lines, count = string.match(meta, '^(%d+) (%d+) (%d+)$')
  revision, lines, count = tonumber(revision), tonumber(lines), tonumber(count)

  local merged = {}
  for quantity, sku in string.gmatch(redis.call('HGET', merged_before, source) or '', '(%d+) ([^\n]+)\n') do
    merged[sku] = tonumber(quantity)
  end

  local dropped, changed = 0, false
  for i = 1, #lines_there, step do
    local sku, there = lines_there[i], tonumber(lines_there[i + 1])
    for other = i + 3, i + step - 1 do
      local marked = merged[lines_there[other]]
      if marked then
        merged[sku], merged[lines_there[other]] = math.max(marked, merged[sku] or 0), nil
      end
    end
    local more = there - (merged[sku] or 0)
    if more > 0 then
      local before, fields, elsewhere
      if names then
        before, fields, elsewhere = standing(cart, lines_there, i, names)
      else
        before = tonumber(redis.call('HGET', cart, sku) or '0') or 0
        fields = before > 0 and 1 or 0
      end
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
        if elsewhere then redis.call('HDEL', cart, unpack(lines_there, i + 3, i + step - 1)) end
        redis.call('HSET', cart, sku, names and after .. lines_there[i + 2] or after)
        lines = lines + 1 - fields
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

-- What is in one argument: the length of each part, a colon, and the part.
local function parts_of(packed)
  local parts, at = {}, 1
  while at <= #packed do
    local colon = string.find(packed, ':', at, true)
    local length = tonumber(string.sub(packed, at, colon - 1))
    parts[#parts + 1] = string.sub(packed, colon + 1, colon + length)
    at = colon + length + 1
  end
  return parts
end

-- Whether a cart and its tokens are what was read, packed as above: the tokens, and then the cart (field, value, ...). Its revision is not enough: of a
-- primary that was lost and of the replica in its place two changes may have the same one.
local function is_as_merged(cart, tokens, packed)
  local read, there, values = parts_of(packed), redis.call('HGETALL', cart), {}
  if (redis.call('GET', tokens) or '') ~= read[1] or #there ~= #read - 1 then return false end
  for i = 2, #read, 2 do values[read[i]] = read[i + 1] end
  for i = 1, #there, 2 do
    if values[there[i]] ~= there[i + 1] then return false end
  end
  return true
end

-- The same with an anonymous cart and its tokens as they are in the store; KEYS[to] is the first of the user's three. What is in an encrypted
-- cart only who has the keys can say: behind `how` and a newline stand then, packed, what was read of it, and its lines (see standing.lua).
-- Returns how many units found no room; nothing, has done nothing, and what to answer, when the cart is another by now or a line cannot be read.
local function merge_keys(from_cart, from_tokens, to, how)
  local lines = {}
  local instructions, packed = string.match(how, '^([^\n]*)\n(.*)$')
  if instructions then
    lines = parts_of(packed)
    if not is_as_merged(from_cart, from_tokens, table.remove(lines, 1)) then return nil, 5 end
    how = instructions
  else
    local all = redis.call('HGETALL', from_cart)
    for i = 1, #all, 2 do
      local kind = string.sub(all[i], 1, 1)
      if kind == '\1' then return nil, 11 end
      if kind ~= '@' then
        lines[#lines + 1] = all[i]
        lines[#lines + 1] = all[i + 1]
      end
    end
  end
  local source, tokens_there = string.match(from_cart, '{(.-)}'), redis.call('GET', from_tokens) or ''
  local _, dropped = merge(source, lines, tokens_there, how, KEYS[to], KEYS[to + 1], KEYS[to + 2])
  return dropped, 11
end
