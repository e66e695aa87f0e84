-- Stands before the scripts that need it.
-- Calls a command with the arguments first to last of a list, 1000 at a time: Lua unpacks no more than some 8000 at once, and an even
-- number parts no field from its value.
local function in_parts(command, key, list, first, last)
  for i = first, last, 1000 do
    redis.call(command, key, unpack(list, i, math.min(i + 999, last)))
  end
end
