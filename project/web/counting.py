"""How Redis counts for rate limits: Lua scripts, so that those who come at once are counted one after another."""

from project.redis import Script

# A key is a hash: second -> how many, and their sum under "n", the oldest and newest second under "a" and "z".
# Seconds older than the window are subtracted one by one, each once; a call that finds nothing old touches two fields.
# The second that is just passing counts in full, so a window is never too short, at most one second too long.
_COUNTING = """
local now = tonumber(redis.call('TIME')[1])

local function look(key, quota, window, cost)  -- what is to be written, whether it fits, and when that changes
  local row = redis.call('HMGET', key, 'n', 'a', 'z')
  local n, oldest, newest = tonumber(row[1] or 0), tonumber(row[2] or now), tonumber(row[3] or now)
  local at = math.max(now, newest)
  local first = at - window
  if newest < first then
    redis.call('DEL', key)
    n, oldest = 0, at
  end
  while oldest < first do
    n = n - tonumber(redis.call('HGET', key, oldest) or 0)
    redis.call('HDEL', key, oldest)
    oldest = oldest + 1
  end
  local reset, fits = window, n + cost <= quota
  if not fits and cost <= quota then
    local freed, second = quota - n, oldest
    while freed < cost and second <= at do
      freed = freed + tonumber(redis.call('HGET', key, second) or 0)
      second = second + 1
    end
    reset = second - 1 + window + 1 - at
  end
  return {key, n, tonumber(row[1] or 0), oldest, newest, at, cost, window}, fits, math.max(quota - n, 0), reset
end

local function keep(plan, fits)
  local key, n, before, oldest, newest, second, cost, window = unpack(plan)
  if fits then
    redis.call('HINCRBY', key, second, cost)
    if second == newest and n == before and n > 0 then
      redis.call('HINCRBY', key, 'n', cost)
    else
      redis.call('HSET', key, 'n', n + cost, 'a', oldest, 'z', second)
      redis.call('EXPIRE', key, window + 2)
    end
  elseif n ~= before then
    redis.call('HSET', key, 'n', n, 'a', oldest)
    redis.call('EXPIRE', key, window + 2)
  end
end
"""

TAKE = Script(
    _COUNTING
    + """
local fits, plans, reply = true, {}, {1}
for i, key in ipairs(KEYS) do
  local plan, fit, remaining, reset = look(key, tonumber(ARGV[3*i-2]), tonumber(ARGV[3*i-1]), tonumber(ARGV[3*i]))
  plans[i], fits = plan, fits and fit
  reply[3*i-1], reply[3*i], reply[3*i+1] = remaining, reset, plan[6]
end
if not fits then reply[1] = 0 end
for i, plan in ipairs(plans) do
  keep(plan, fits)
  if fits then reply[3*i-1] = reply[3*i-1] - plan[7] end
end
return reply
"""
)

# The same for each by itself. One whose hash is broken is nobody else's trouble; what Redis refuses to all is an error.
TAKE_EACH = Script(
    _COUNTING
    + """
local function take(key, quota, window, cost)
  local plan, fits, remaining, reset = look(key, quota, window, cost)
  keep(plan, fits)
  return {fits and 1 or 0, fits and remaining - cost or remaining, reset, plan[6]}
end

local reply = {}
for i, key in ipairs(KEYS) do
  local made, taken = pcall(take, key, tonumber(ARGV[3*i-2]), tonumber(ARGV[3*i-1]), tonumber(ARGV[3*i]))
  if not made then
    local text = type(taken) == 'table' and taken.err or tostring(taken)
    local code = string.match(text, '^(%u+) ')
    if string.find(text, 'ACL failure') or code and code ~= 'WRONGTYPE' and code ~= 'ERR' then
      return redis.error_reply(text)
    end
  end
  reply[i] = made and taken or {}
end
return reply
"""
)

GIVE_BACK = Script("""
for i, key in ipairs(KEYS) do
  local second, cost = ARGV[2*i-1], tonumber(ARGV[2*i])
  local counted = tonumber(redis.call('HGET', key, second) or 0)
  if counted >= cost then
    redis.call('HINCRBY', key, second, -cost)
    redis.call('HINCRBY', key, 'n', -cost)
  end
end
""")
