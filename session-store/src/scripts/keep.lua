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
