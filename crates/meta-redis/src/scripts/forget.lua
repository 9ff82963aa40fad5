-- Removes counts of references that say no more than a missing one. KEYS: sliceRef; ARGV: fields.
for _, field in ipairs(ARGV) do
  if call('HGET', KEYS[1], field) == '0' then call('HDEL', KEYS[1], field) end
end
return 1
