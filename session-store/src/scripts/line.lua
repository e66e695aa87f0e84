-- A number in a string is one where it is reckoned with: to make it one before costs as much again.
local cart, tokens, token, most, first = KEYS[1], KEYS[2], ARGV[2], ARGV[4] + 0, names and 13 or 12
local name, c = ARGV[first], nil
if names and names > 1 then
  c = call('HMGET', cart, '@', name, unpack(ARGV, 16))
else
  c = call('HMGET', cart, '@', name)
end
local revision, lines, count = string.match(c[1] or '0 0 0', '^(%d+) (%d+) (%d+)$')
revision = revision + 1
-- The quantity, the fields that it stands in, and whether any of them is another than it is to have.
local before, fields, elsewhere = 0, 0, false
if names then
  for i = 2, names + 1 do
    if c[i] then
      local digits_there = string.match(c[i], '^%d+')
      if not digits_there then return {11} end
      before, fields, elsewhere = before + digits_there, fields + 1, elsewhere or i > 2
    end
  end
else
  before = c[2] and tonumber(c[2]) or 0
  if before > 0 then fields = 1 end
end
local after = ARGV[1] == 'add' and before + ARGV[first + 1] or ARGV[first + 1] + 0
local refused = after > ARGV[8] + 0 and 7 or after > 0 and before == 0 and lines + 0 >= ARGV[7] + 0 and 6

local own, seen, mark = ARGV[3] == '2', nil, token .. ' '
local counted
if not own then
  seen = call('GET', tokens) or ''
  counted = string.find(seen, mark, 1, true)
elseif revision > most and call('SISMEMBER', KEYS[3], token) == 1 then
  counted = true
else
  -- What is refused is not remembered.
  counted = refused and call('SISMEMBER', tokens, token) == 1 or not refused and call('SADD', tokens, token) == 0
end
if counted then return {1, 0, revision - 1, before, lines + 0, count + 0, extended, kept} end
if refused then return {refused} end

lines, count = lines - fields, count + after - before
if after > 0 then lines = lines + 1 end
-- The answer, and what the cart says of itself, which is all of it but the quantity.
local numbers = string.format('%d %d %d %d', after, revision, lines, count)
local all = string.match(numbers, ' (.*)')
if elsewhere then call('HDEL', cart, unpack(ARGV, 16)) end
if after > 0 then
  call('HSET', cart, name, names and after .. ARGV[15] or after, '@', all)
else
  if fields > 0 then call('HDEL', cart, name) end
  call('HSET', cart, '@', all)
end
call('PEXPIRE', cart, ARGV[6])
if own then
  call('PEXPIRE', tokens, ARGV[5])
  if revision >= most and call('SCARD', tokens) >= most then call('RENAME', tokens, KEYS[3]) end
else
  call('SET', tokens, string.sub(mark .. seen, 1, #mark * most), 'PX', ARGV[5])
end
-- A list of so many answers costs the store as much as a command.
if extended == '' then return numbers end
return {1, 1, revision, after, lines, count, extended, kept}
