-- Several reads at one moment. KEYS: the key of each; ARGV: for each its command, the number of arguments, the arguments.
local at = 0
local function arg() at = at + 1 return ARGV[at] end

local function lookup(key, name, prefix)
  local edge = call('HGET', key, name)
  if not edge then return false end
  if #edge ~= 9 then return {edge, false} end
  return {edge, call('GET', prefix .. 'i' .. dec(string.sub(edge, 2)))}
end

local out = {}
for i, key in ipairs(KEYS) do
  local command, n = arg(), tonumber(arg())
  if command == 'LOOKUP' then
    out[i] = lookup(key, arg(), arg())
  elseif command == 'XATTRSIZES' then
    out[i] = xattr_sizes(key, arg())
  elseif n == 0 then
    out[i] = call(command, key)
  elseif n == 1 then
    out[i] = call(command, key, arg())
  else
    local first = arg()
    out[i] = call(command, key, first, arg())
  end
end
return out
