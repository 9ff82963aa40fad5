-- Bytes that an inode's other extended attributes take, names included, and those of this one's value, or false.
local function xattr_sizes(key, name)
  local all, others, own = call('HGETALL', key), 0, false
  for i = 1, #all, 2 do
    if all[i] == name then own = #all[i + 1] else others = others + #all[i] + #all[i + 1] end
  end
  return {others, own}
end
