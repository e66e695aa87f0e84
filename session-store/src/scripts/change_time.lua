
-- Behind change.lua where change_extend.lua is before it: what keep.lua does, which stands behind this, for a session that has no other end.
if absolute == '*' and not s[2] then
  call('PEXPIRE', key, policy)
  return revision
end
