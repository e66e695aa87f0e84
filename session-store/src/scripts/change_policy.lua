  -- Others have changed the session since, and may have chosen when it ends: that counts, unless this commit chooses.
  s[3] = ARGV[7] ~= '@expiry' and call('HGET', key, '@expiry') or nil
  if s[3] then policy, absolute = s[3], absolute ~= '*' and absolute or '' end
