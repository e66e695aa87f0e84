  -- Others have changed the session since, and may have chosen when it ends: that counts, unless this commit chooses.
  s[4] = ARGV[7] ~= '@expiry' and call('HGET', key, '@expiry') or nil
  if s[4] then policy, absolute = s[4], absolute ~= '*' and absolute or '' end
