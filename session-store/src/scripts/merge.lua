-- Merges the lines of an anonymous cart into a user's, each unit of quantity once, however often this runs.
-- KEYS: the user's cart, what was merged into it before (one field per source), the tokens that it remembers.
-- ARGV: 1 source, 2 TTL in ms, 3 lines at most, 4 quantity at most, 5 sources to remember,
--       6 tokens that the anonymous cart remembers, 7 tokens to remember, then sku, quantity, ...
local meta = redis.call('HGET', KEYS[1], '@') or '0 0 0'
local revision, lines, count = string.match(meta, '^(%d+) (%d+) (%d+)$')
revision, lines, count = tonumber(revision), tonumber(lines), tonumber(count)

local merged = {}
for quantity, sku in string.gmatch(redis.call('HGET', KEYS[2], ARGV[1]) or '', '(%d+) ([^\n]+)\n') do
  merged[sku] = tonumber(quantity)
end

local lines_max, quantity_max, dropped, changed = tonumber(ARGV[3]), tonumber(ARGV[4]), 0, false
for i = 8, #ARGV, 2 do
  local sku, there = ARGV[i], tonumber(ARGV[i + 1])
  local more = there - (merged[sku] or 0)
  if more > 0 then
    local before = tonumber(redis.call('HGET', KEYS[1], sku) or '0') or 0
    local after = math.max(math.min(before + more, quantity_max), before)
    if before == 0 and lines >= lines_max then after = before end
    dropped = dropped + before + more - after
    if after > before then
      redis.call('HSET', KEYS[1], sku, after)
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
  redis.call('HSET', KEYS[1], '@', revision .. ' ' .. lines .. ' ' .. count)
end
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
if #ARGV >= 8 then
  if not redis.call('HGET', KEYS[2], ARGV[1]) and redis.call('HLEN', KEYS[2]) >= tonumber(ARGV[5]) then
    local oldest, age
    local all = redis.call('HGETALL', KEYS[2])
    for i = 1, #all, 2 do
      local at = tonumber(string.match(all[i + 1], '^%d+')) or 0
      if not age or at < age then oldest, age = all[i], at end
    end
    redis.call('HDEL', KEYS[2], oldest)
  end
  local marks = {tostring(revision) .. '\n'}
  for sku, quantity in pairs(merged) do marks[#marks + 1] = quantity .. ' ' .. sku .. '\n' end
  redis.call('HSET', KEYS[2], ARGV[1], table.concat(marks))
  redis.call('PEXPIRE', KEYS[2], ARGV[2])
end

-- What was sent before the login may be sent again after it.
local seen, fresh, width = redis.call('GET', KEYS[3]) or '', {}, 0
for mark in string.gmatch(ARGV[6], '[^ ]+ ') do
  width = #mark
  if not string.find(seen, mark, 1, true) then fresh[#fresh + 1] = mark end
end
if #fresh > 0 then
  seen = string.sub(table.concat(fresh) .. seen, 1, width * tonumber(ARGV[7]))
  redis.call('SET', KEYS[3], seen, 'PX', ARGV[2])
end
return {1, revision, dropped}
