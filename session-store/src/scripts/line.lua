local cart, tokens, token, most, sku = KEYS[1], KEYS[2], ARGV[2], tonumber(ARGV[4]), ARGV[15]
local c = call('HMGET', cart, '@', sku)
local revision, lines, count = string.match(c[1] or '0 0 0', '^(%d+) (%d+) (%d+)$')
revision, lines, count = tonumber(revision), tonumber(lines), tonumber(count)
local before = tonumber(c[2] or '0') or 0
local after = ARGV[1] == 'add' and before + ARGV[16] or tonumber(ARGV[16])
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
if after > 0 then
  if before == 0 then lines = lines + 1 end
  call('HSET', cart, sku, after, '@', revision .. ' ' .. lines .. ' ' .. count)
else
  if before > 0 then
    lines = lines - 1
    call('HDEL', cart, sku)
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
