kept = keep(session, policy, ARGV[12], call('HMGET', session, '@until', '@created', '@capped'))
if kept <= 0 then return {0} end
along(ARGV[13], session, nil, kept)
extended = policy
