-- Checks every guard, then applies every write. ARGV is a stream: '1' if the writes are made also where memory is used up, the
-- number of guards, the guards, the writes.
-- Answers {1, outputs} or, with nothing written, {0, true values of the guarded records}.
local sub, find = string.sub, string.find
local at = 0
local function arg() at = at + 1 return ARGV[at] end
local function num() return tonumber(arg()) end
local function key() return KEYS[num()] end

-- A letter stands for one thing only, guard or write.
local guard = {}
-- Attributes: expected record or '', letters of the fields that matter.
function guard.A()
  local v, want, mask = call('GET', key()), arg(), arg()
  if want == '' or not v then return (want == '') == not v, v end
  local function same(letter, from, to)
    return not find(mask, letter, 1, true) or sub(v, from, to) == sub(want, from, to)
  end
  return same('i', 1, 11) and same('i', 60, -1) and same('n', 48, 51) and same('l', 52, 59) and same('t', 12, 47)
    and same('p', 64, 71) and same('c', 36, 47), v
end
-- Entry: name, expected record or ''.
function guard.E()
  local v = call('HGET', key(), arg())
  return (v or '') == arg(), v
end
-- No such key.
function guard.D()
  local v = call('EXISTS', key())
  return v == 0, v
end
-- Chunk list: number of records compared, '1' if there may be no more, the records.
function guard.S()
  local k, count, exact, want = key(), num(), arg() == '1', arg()
  local v = {}
  if exact then v = call('LRANGE', k, 0, -1) elseif count > 0 then v = call('LRANGE', k, 0, count - 1) end
  local holds = #v == count and table.concat(v) == want
  if not holds then v = call('LRANGE', k, 0, -1) end
  return holds, v
end
local function value(v)
  local there, want = arg() == '1', arg()
  return there == (v ~= false) and (not there or v == want), v
end
-- Field of a hash, or a string: '1' if it must exist, its value.
function guard.X() return value(call('HGET', key(), arg())) end
function guard.V() return value(call('GET', key())) end
-- Field of a hash that must exist, whatever its value.
function guard.Y()
  local v = call('HGET', key(), arg())
  return v ~= false, v
end
-- Room for a value of an extended attribute: its name, bytes of the value, most bytes of all.
function guard.B()
  local k, name = key(), arg()
  local v, len, most = xattr_sizes(k, name), num(), num()
  return (v[2] and len <= v[2]) or v[1] + #name + len <= most, v
end
-- Counter: its value in decimal.
function guard.N()
  local v = call('GET', key())
  return (v or '0') == arg(), v
end
-- A number, or nothing for 0; what is none is greater than all: then the guard fails, and the answer tells why.
local function least(v)
  return tonumber(v or '0') or math.huge
end
-- Counter: its highest value.
function guard.M()
  local v, most = call('GET', key()), num()
  return least(v) <= most, v
end
-- Quota: hashes of limits, used bytes, used inodes; the field; the most bytes and inodes in use.
function guard.Q()
  local limits, space, inodes, field = key(), key(), key(), arg()
  local v = {call('HGET', limits, field), call('HGET', space, field), call('HGET', inodes, field)}
  local bytes, nodes = num(), num()
  return least(v[2]) <= bytes and least(v[3]) <= nodes, v
end
-- Usage of a directory: three hashes, the field, '1' if it must exist, three numbers.
function guard.U()
  local keys, field = {key(), key(), key()}, arg()
  local v, there = {}, arg() == '1'
  for i = 1, 3 do v[i] = call('HGET', keys[i], field) end
  local holds = there == (v[1] ~= false)
  for i = 1, 3 do
    if arg() ~= (v[i] or '0') then holds = false end
  end
  return holds, v
end
-- The field exists.
function guard.H()
  local v = call('HEXISTS', key(), arg())
  return v == 1, v
end
-- The whole hash: '1' if values below 1 do not count, number of fields, fields and values.
function guard.L()
  local v, positive, count = call('HGETALL', key()), arg() == '1', num()
  local found, n = {}, 0
  for i = 1, #v, 2 do
    if not positive or least(v[i + 1]) > 0 then
      found[v[i]] = v[i + 1]
      n = n + 1
    end
  end
  local holds = n == count
  for _ = 1, count do
    local field, want = arg(), arg()
    if found[field] ~= want then holds = false end
  end
  return holds, v
end
-- Parents of a file: none, or one outside the trash. The trash begins at a number; numbers so high are compared as text.
function guard.O()
  local v, first = call('HGETALL', key()), arg()
  local any, outside = false, false
  for i = 1, #v, 2 do
    if least(v[i + 1]) > 0 then
      any = true
      outside = outside or #v[i] < #first or (#v[i] == #first and v[i] < first)
    end
  end
  return outside or not any, v
end

-- A number that a command has told; from 2^53 on Lua has lost digits of it.
local function exact(v, command, k, ...)
  if type(v) ~= 'number' or math.abs(v) < 9007199254740992 then return v end
  if command == 'INCRBY' then return call('GET', k) end
  if command == 'HINCRBY' then return call('HGET', k, (...)) end
  return v
end
local function told(command, k, ...)
  return exact(call(command, k, ...), command, k, ...)
end
-- Adds to a number of an account. By then other records are written, and a script cannot take them back: so this does not fail.
-- A sum beyond 64 bits stays at their end; what is no number stays as it is, for whoever counts anew.
local function add(command, k, ...)
  local v = redis.pcall(command, k, ...)
  if type(v) ~= 'table' or not v.err then return exact(v, command, k, ...) end
  if find(v.err, 'would overflow', 1, true) then
    local n = select(-1, ...)
    local most = sub(n, 1, 1) == '-' and '-9223372036854775808' or '9223372036854775807'
    if command == 'INCRBY' then call('SET', k, most) else call('HSET', k, (...), most) end
    return most
  end
  if not find(v.err, 'not an integer', 1, true) and not find(v.err, 'WRONGTYPE', 1, true) then call(command, k, ...) end
  return false
end

local out = {}
local write = {}
-- Any command: '1' if its answer is wanted, number of arguments after the key, command, key, arguments.
local function run(by)
  local wanted, count, command, k = arg() == '1', num(), arg(), key()
  local v = by(command, k, unpack(ARGV, at + 1, at + count))
  at = at + count
  if wanted then out[#out + 1] = v end
end
function write.C() run(told) end
-- The same with a command that adds to a number.
function write.I() run(add) end
-- Changes bytes of an attribute record: nlink delta, 12 mode bits or '', number of patches, offsets and bytes. Output: the
-- record.
function write.P()
  local k, links, mode, count = key(), num(), arg(), num()
  local v = call('GET', k)
  if v and #v < 71 then v = v .. string.rep('\0', 72 - #v) end
  for _ = 1, count do
    local from, bytes = num(), arg()
    if v then
      if from >= 72 then v = sub(v, 1, 71) .. bytes else v = sub(v, 1, from - 1) .. bytes .. sub(v, from + #bytes) end
    end
  end
  if not v then
    out[#out + 1] = false
    return
  end
  if mode ~= '' then
    local m, high = tonumber(mode), string.byte(v, 2)
    v = sub(v, 1, 1) .. string.char(high - high % 16 + math.floor(m / 256), m % 256) .. sub(v, 4)
  end
  if links ~= 0 then
    local a, b, c, d = string.byte(v, 48, 51)
    local n = math.min(math.max(((a * 256 + b) * 256 + c) * 256 + d + links, 0), 4294967295)
    local bytes = string.char(
      math.floor(n / 16777216), math.floor(n / 65536) % 256, math.floor(n / 256) % 256, n % 256)
    v = sub(v, 1, 47) .. bytes .. sub(v, 52)
  end
  call('SET', k, v)
  out[#out + 1] = v
end
-- Removes a chunk's list and drops a reference per record. Output: records and what is left in sliceRef, in turn.
function write.T()
  local k, refs = key(), key()
  local list, taken = call('LRANGE', k, 0, -1), {}
  if #list > 0 then call('DEL', k) end
  for _, record in ipairs(list) do
    local id = sub(record, 5, 12)
    -- What is no record refers to nothing.
    if #record == 24 and id ~= '\0\0\0\0\0\0\0\0' then
      taken[#taken + 1] = record
      taken[#taken + 1] = add('HINCRBY', refs, 'k' .. dec(id) .. '_' .. dec('\0\0\0\0' .. sub(record, 13, 16)), -1)
    end
  end
  out[#out + 1] = taken
end
-- Adds to the usage of a directory that has a record: three hashes, the field, three numbers.
function write.G()
  local keys, field, there = {key(), key(), key()}, arg(), 0
  there = call('HEXISTS', keys[1], field)
  for i = 1, 3 do
    local n = arg()
    if there == 1 and n ~= '0' then add('HINCRBY', keys[i], field, n) end
  end
  out[#out + 1] = there
end
-- Sets two fields if the first is there: two hashes, the field, two values.
function write.F()
  local first, second, field, a, b = key(), key(), arg(), arg(), arg()
  if call('HEXISTS', first, field) == 1 then
    call('HSET', first, field, a)
    call('HSET', second, field, b)
  end
end
-- Adds to the usage under a quota: hashes of limits, used bytes, used inodes; the field; limits of a missing one, or '' to
-- leave it missing; bytes and inodes. Output: 1 if there is one now.
function write.J()
  local limits, space, inodes, field, start, bytes, nodes = key(), key(), key(), arg(), arg(), arg(), arg()
  local there = start ~= '' or call('HEXISTS', inodes, field) == 1
  if there then
    if start ~= '' then call('HSETNX', limits, field, start) end
    add('HINCRBY', space, field, bytes)
    add('HINCRBY', inodes, field, nodes)
  end
  out[#out + 1] = there and 1 or 0
end
-- Registers or refreshes a session. Output: 1 if it was registered.
function write.Z()
  local all, infos, expire, sid, info = key(), key(), arg(), arg(), arg()
  call('ZADD', all, expire, sid)
  out[#out + 1] = 1 - call('HSETNX', infos, sid, info)
end
-- Drops a holder's locks, and the session's note of the key if the session holds no other lock in it.
function write.K()
  local k, noted, field, mine = key(), key(), arg(), arg()
  call('HDEL', k, field)
  for _, other in ipairs(call('HKEYS', k)) do
    if sub(other, 1, #mine) == mine then return end
  end
  call('SREM', noted, k)
end
-- Appends a record to the lists of a range of chunks, where they exist: start of the key, first, last, record.
function write.R()
  local start, first, last, record = arg(), num(), num(), arg()
  for i = first, last do call('RPUSHX', start .. string.format('%.0f', i), record) end
end

-- A server at its maxmemory refuses what may grow as long as a script has written nothing. Every version lets one go on that
-- has; the flag `allow-oom` is not known before Redis 7, and would be one of the whole script. Nothing has this key.
local always = arg() == '1'
local truths, holds = {}, true
-- Most bytes of a true value that is told.
local long = {S = LIST, L = LIST, O = LIST, X = VALUE, Y = VALUE, V = VALUE}
for i = 1, num() do
  local letter = arg()
  local ok, v = guard[letter]()
  truths[i] = bounded(v, long[letter] or SMALL, 'guarded')
  holds = holds and ok
end
if not holds then return {0, truths} end
if always then call('DEL', key()) end
while at < #ARGV do write[arg()]() end
for i = 1, #out do out[i] = bounded(out[i], type(out[i]) == 'table' and LIST or SMALL, 'told') end
return {1, out}
