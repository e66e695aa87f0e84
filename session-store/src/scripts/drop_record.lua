-- Removes a record that other software has written, if it is as it was read. KEYS: the record. ARGV: what was read.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {0} end
redis.call('DEL', KEYS[1])
return {1}
