-- A command that lists. KEYS: its key; ARGV: the most bytes of an element, the command, its arguments. What is longer is told as
-- that, and so is what comes after all that an answer may hold.
local most, sum = tonumber(ARGV[1]), 0
local function cut(v)
  if type(v) == 'table' and not v.ok then
    for i = 1, #v do v[i] = cut(v[i]) end
  elseif type(v) == 'string' then
    sum = sum + #v + ELEMENT
    if #v > most or sum > LIST then
      if #v > most then sum = sum - #v end
      return overlong(#v, KEYS[1])
    end
  end
  return v
end
return cut(call(ARGV[2], KEYS[1], unpack(ARGV, 3)))
