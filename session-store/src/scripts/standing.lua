-- Stands before the scripts of encrypted carts. A line is so many names, the first of which it is to have, in `list` from `at` on: name, quantity,
-- what is stored behind the quantity, the other names. It may stand under each of them, and under two after a replica without all keys has been at it.
-- Returns its quantity, how many fields it has, and whether any but the first; nothing for one that is damaged.
local function standing(cart, list, at, names)
  local values = redis.call('HMGET', cart, list[at], unpack(list, at + 3, at + 1 + names))
  local quantity, fields, elsewhere = 0, 0, false
  for i = 1, names do
    if values[i] then
      local digits_there = string.match(values[i], '^%d+')
      if not digits_there then return nil end
      quantity, fields = quantity + tonumber(digits_there), fields + 1
      elsewhere = elsewhere or i > 1
    end
  end
  return quantity, fields, elsewhere
end
