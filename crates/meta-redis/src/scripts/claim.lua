-- Takes a job: KEYS: its stamp; ARGV: now, latest stamp that lets us. Answers 1 if it is ours.
local stamp = call('GET', KEYS[1])
if stamp and tonumber(stamp) > tonumber(ARGV[2]) then return 0 end
-- A server at its maxmemory lets only a script write that has freed something.
call('DEL', KEYS[1])
call('SET', KEYS[1], ARGV[1])
return 1
