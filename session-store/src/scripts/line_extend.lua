kept = keep(session, policy, ARGV[10], call('HMGET', session, '@until', '@created', '@capped'))
if kept <= 0 then return {0} end
along(ARGV[11], session, nil, kept)
extended = policy
