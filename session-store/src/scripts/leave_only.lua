-- Stands before the scripts that need it, behind in_parts.lua.
-- Removes all fields of a hash but one that it has. So it is never deleted and made anew: while a slot moves, a key that is not there is
-- another node's, also within a script.
local function leave_only(key, left)
  local former = {}
  for _, field in ipairs(redis.call('HKEYS', key)) do
    if field ~= left then former[#former + 1] = field end
  end
  in_parts('HDEL', key, former, 1, #former)
end
