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
  -- One moment for both: nobody logs in after being seen last.
  local now = digits(now_ms())
  if string.find(how, 's', 1, true) then redis.call('HSET', session, '@seen', now) end
  if string.find(how, 'l', 1, true) then redis.call('HSET', session, '@login', now) end
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
