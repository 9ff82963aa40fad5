-- An entry and the attributes of its target. KEYS: directory; ARGV: name, prefix of keys.
local edge = redis.call('HGET', KEYS[1], ARGV[1])
if not edge then return false end
if #edge ~= 9 then return {edge, false} end
return {edge, redis.call('GET', ARGV[2] .. 'i' .. dec(string.sub(edge, 2)))}
