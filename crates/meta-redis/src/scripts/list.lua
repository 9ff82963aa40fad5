-- One page of a directory. KEYS: directory; ARGV: cursor, entries wanted, largest directory that is returned whole,
-- '1' for attributes, prefix of keys. Answers {cursor, names and entries, attributes}. Of a name that is too long, or an entry of
-- another length than theirs, enough is told to show that.
local cursor, flat = '0', nil
if ARGV[1] == '0' and call('HLEN', KEYS[1]) <= tonumber(ARGV[3]) then
  flat = call('HGETALL', KEYS[1])
else
  local page = call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
  cursor, flat = page[1], page[2]
end
for i = 1, #flat, 2 do
  if #flat[i] > NAME then flat[i] = string.sub(flat[i], 1, NAME + 1) end
  if #flat[i + 1] ~= 9 then flat[i + 1] = '' end
end
local attrs = {}
if ARGV[4] == '1' then
  local keys = {}
  for i = 2, #flat, 2 do
    keys[#keys + 1] = ARGV[5] .. 'i' .. (#flat[i] == 9 and dec(string.sub(flat[i], 2)) or '0')
    if #keys == 1000 or i == #flat then
      for _, v in ipairs(call('MGET', unpack(keys))) do attrs[#attrs + 1] = bounded(v, SMALL, KEYS[1]) end
      keys = {}
    end
  end
end
return {cursor, flat, attrs}
