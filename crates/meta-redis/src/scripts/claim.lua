-- Takes a job: KEYS: its stamp; ARGV: now, and the stamps, after the first and up to the second, that keep us from it. Answers 1 if
-- it is ours.
local stamp = tonumber(call('GET', KEYS[1]) or '')
if stamp and stamp > tonumber(ARGV[2]) and stamp <= tonumber(ARGV[3]) then return 0 end
-- A server at its maxmemory lets only a script write that has freed something.
call('DEL', KEYS[1])
call('SET', KEYS[1], ARGV[1])
return 1
