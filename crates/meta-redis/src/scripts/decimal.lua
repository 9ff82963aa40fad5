-- Eight big-endian bytes as exact decimal text: Lua's numbers are doubles and lose digits beyond 2^53.
local function dec(s)
  local a, b, c, d, e, f, g, h = string.byte(s, 1, 8)
  local hi = ((a * 256 + b) * 256 + c) * 256 + d
  if hi < 2097152 then
    return string.format('%.0f', hi * 4294967296 + ((e * 256 + f) * 256 + g) * 256 + h)
  end
  local limbs, out = {a * 256 + b, c * 256 + d, e * 256 + f, g * 256 + h}, ''
  while true do
    local rest, left = 0, 0
    for i = 1, 4 do
      local v = rest * 65536 + limbs[i]
      limbs[i] = math.floor(v / 1000000)
      rest = v % 1000000
      left = left + limbs[i]
    end
    if left == 0 then return string.format('%.0f', rest) .. out end
    out = string.format('%06.0f', rest) .. out
  end
end
