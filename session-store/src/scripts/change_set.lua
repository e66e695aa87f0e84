if call('HSET', key, '@rev', revision, '@tok', tokens, unpack(ARGV, 7, set)) > 0 and call('HEXISTS', key, '@ended') == 1 then
  -- What was not there may have been the revision: under an id that it has given up the version before has left the tokens. It is no session, and becomes
  -- none; what is set is there for those who read what was under that id until its grace is over.
  call('HDEL', key, '@rev', '@tok')
  return {2}
end
if set < last then call('HDEL', key, unpack(ARGV, set + 1, last)) end
-- A number is answered as one.
revision = revision + 0
