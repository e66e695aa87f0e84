-- Removes a record that other software has written, if it is as it was read, and notes that it was not the other software that did.
-- KEYS: the record, the note. ARGV: what was read, ms for which the note is kept.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {0} end
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[2], 1, 'PX', ARGV[2])
return {1}
