-- Several reads at one moment. KEYS: the key of each; ARGV: for each the most bytes that its answer may take, its command, the
-- number of arguments, the arguments.
local at = 0
local function arg() at = at + 1 return ARGV[at] end

local function lookup(key, name, prefix)
  local edge = call('HGET', key, name)
  if not edge then return false end
  if #edge ~= 9 then return {edge, false} end
  return {edge, call('GET', prefix .. 'i' .. dec(string.sub(edge, 2)))}
end

local function answer(key, command, n)
  if command == 'LOOKUP' then return lookup(key, arg(), arg()) end
  if command == 'XATTRSIZES' then return xattr_sizes(key, arg()) end
  if n == 0 then return call(command, key) end
  if n == 1 then return call(command, key, arg()) end
  local first = arg()
  return call(command, key, first, arg())
end

local out = {}
for i, key in ipairs(KEYS) do
  local most, command, n = tonumber(arg()), arg(), tonumber(arg())
  out[i] = bounded(answer(key, command, n), most, key)
end
return out
