local extended, kept, policy, due = '', 0, '', false
if session then
  if not s[1] then
    if call('HEXISTS', session, '@ended') == 1 then return {2} end
    return {0}
  end
  if (s[2] or '') ~= ARGV[9] then return {4, s[2] or ''} end
  if names and bind ~= '*' and (s[5] or '') ~= bind then return {10, s[5] or ''} end
  policy = s[3] or ''
  local idle = tonumber(string.sub(policy, 2))
  if idle then
    due = ARGV[10] ~= '' and not s[4]
      or string.sub(policy, 1, 1) ~= 'a' and call('PTTL', session) < idle - math.min(idle / 16, 3600000) and call('HEXISTS', session, '@capped') == 0
  end
end
