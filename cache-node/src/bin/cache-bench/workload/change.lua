-- The script with which session-store commits the fields that a request changed, as it stood on 2026-11-25 (change, keep).
-- A copy, so that the library may change its scripts without a benchmark that breaks, and figures of different days compare.
-- The commit of a request that changed fields and nothing else, as nearly every one does: commit.lua says the same for all that a
-- request may change. Nothing here is a function, since each one is made anew at every call and costs as much as a command does.
-- KEYS: session. ARGV: commit token, policy, absolute time in ms or '', the field whose value must not have changed or '', that value
-- behind a '=' or '' for none, number of arguments that set (field, value, ...), those, then the fields to remove.
local call, key, ARGV = redis.call, KEYS[1], ARGV
local s = call('HMGET', key, '@until', '@created', '@capped', '@rev', '@tok', '@ended')
if not s[4] then
  if s[6] then return {2} end
  return {0}
end
local mark, seen = ARGV[1] .. ' ', s[5] or ''
if string.find(seen, mark, 1, true) then return {1, tonumber(s[4]), call('PTTL', key)} end

if ARGV[4] ~= '' then
  local current = call('HGET', key, ARGV[4])
  if (current and '=' .. current or '') ~= ARGV[5] then return {8, current} end
end

local revision, set = s[4] + 1, 6 + ARGV[6]
call('HSET', key, '@rev', revision, '@tok', string.sub(mark .. seen, 1, 8 * #mark), unpack(ARGV, 7, set))
if set < #ARGV then call('HDEL', key, unpack(ARGV, set + 1)) end

-- The same as keep.lua.
local ttl, absolute = string.sub(ARGV[2], 2), ARGV[3]
local kept, last = tonumber(ttl), tonumber(s[1] or '')
if absolute == '' and not last and kept <= 315360000000 and string.sub(ARGV[2], 1, 1) ~= 'a' then
  call('PEXPIRE', key, ttl)
  return {1, revision, kept, 0, 0}
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
return {1, revision, keep(key, ARGV[2], absolute, s), 0, 0}
