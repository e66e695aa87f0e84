
-- Behind change.lua where change_extend.lua is before it: the same as keep.lua, which stands behind this, and change_keep.lua behind that.
local ttl = string.sub(policy, 2)
if absolute == '' and not s[2] and tonumber(ttl) <= 315360000000 and string.sub(policy, 1, 1) ~= 'a' then
  call('PEXPIRE', key, ttl)
  return revision
end
