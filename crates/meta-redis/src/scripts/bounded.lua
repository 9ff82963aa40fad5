-- An answer, or a word instead where it takes more than any sound one: the client would hold it whole before it could refuse it.
-- An element of a list takes some bytes beside its own (ELEMENT).
local function taken(v)
  if type(v) == 'string' then return #v end
  local n = 0
  if type(v) == 'table' then
    for i = 1, #v do n = n + ELEMENT + taken(v[i]) end
  end
  return n
end
local function overlong(n, key)
  return {ok = 'OVERLONG ' .. string.format('%.0f', n) .. ' ' .. key}
end
local function bounded(v, most, key)
  local n = taken(v)
  if n > most then return overlong(n, key) end
  return v
end
