if absolute == '*' then policy, absolute = 'i' .. policy, '' end
return {1, revision, keep(key, policy, absolute, call('HMGET', key, '@until', '@created', '@capped')), 0, 0, s[3]}
