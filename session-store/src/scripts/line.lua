local cart, tokens, token, most, first = KEYS[1], KEYS[2], ARGV[2], tonumber(ARGV[4]), names and 16 or 15
local name, c = ARGV[first], nil
if names and names > 1 then
  c = call('HMGET', cart, '@', name, unpack(ARGV, 19))
else
  c = call('HMGET', cart, '@', name)
end
local revision, lines, count = string.match(c[1] or '0 0 0', '^(%d+) (%d+) (%d+)$')
revision, lines, count = tonumber(revision), tonumber(lines), tonumber(count)
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
  before = tonumber(c[2] or '0') or 0
  if before > 0 then fields = 1 end
end
local after = ARGV[1] == 'add' and before + ARGV[first + 1] or tonumber(ARGV[first + 1])
local refused = after > tonumber(ARGV[8]) and 7 or after > 0 and before == 0 and lines >= tonumber(ARGV[7]) and 6

local own, seen, mark = ARGV[3] == '2', nil, token .. ' '
local counted
if not own then
  seen = call('GET', tokens) or ''
  counted = string.find(seen, mark, 1, true)
elseif revision >= most and call('SISMEMBER', KEYS[3], token) == 1 then
  counted = true
else
  -- What is refused is not remembered.
  counted = refused and call('SISMEMBER', tokens, token) == 1 or not refused and call('SADD', tokens, token) == 0
end
if counted then return {1, 0, revision, before, lines, count, extended, kept} end
if refused then return {refused} end

revision, count = revision + 1, count + after - before
if elsewhere then call('HDEL', cart, unpack(ARGV, 19)) end
if after > 0 then
  lines = lines + 1 - fields
  call('HSET', cart, name, names and after .. ARGV[18] or after, '@', revision .. ' ' .. lines .. ' ' .. count)
else
  if fields > 0 then
    lines = lines - fields
    call('HDEL', cart, name)
  end
  call('HSET', cart, '@', revision .. ' ' .. lines .. ' ' .. count)
end
call('PEXPIRE', cart, ARGV[6])
if own then
  call('PEXPIRE', tokens, ARGV[5])
  if revision >= most and call('SCARD', tokens) >= most then call('RENAME', tokens, KEYS[3]) end
else
  call('SET', tokens, string.sub(mark .. seen, 1, #mark * most), 'PX', ARGV[5])
end
return {1, 1, revision, after, lines, count, extended, kept}
