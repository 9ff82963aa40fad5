-- Takes a job: KEYS: its stamp; ARGV: now, latest stamp that lets us. Answers 1 if it is ours.
local stamp = redis.call('GET', KEYS[1])
if stamp and tonumber(stamp) > tonumber(ARGV[2]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1])
return 1
