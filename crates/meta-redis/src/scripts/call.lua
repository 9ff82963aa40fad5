-- As redis.call, but a command that is refused is named: not every version does that.
local function call(command, ...)
  local v = redis.pcall(command, ...)
  if type(v) == 'table' and v.err then
    for _, words in ipairs({'NOPERM', 'ACL failure', "user executing the script can't", 'Unknown Redis command'}) do
      if string.find(v.err, words, 1, true) then error(v.err .. ' [' .. command .. ']') end
    end
    return redis.call(command, ...)
  end
  return v
end
