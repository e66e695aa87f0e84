call('HSET', key, '@rev', revision, '@tok', tokens, unpack(ARGV, 7, set))
if set < last then call('HDEL', key, unpack(ARGV, set + 1, last)) end
-- A number is answered as one.
revision = revision + 0
