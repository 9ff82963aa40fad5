-- Removes counts of references that say no more than a missing one. KEYS: sliceRef; ARGV: fields.
for _, field in ipairs(ARGV) do
  if redis.call('HGET', KEYS[1], field) == '0' then redis.call('HDEL', KEYS[1], field) end
end
return 1
