-- clock: the partition's place and time.      READS meta      WRITES nothing
-- One reading a batch. Time never goes back: a promoted replica may have a slower clock than the one that failed.

local meta = redis.call('HMGET', META, 'epoch', 'seq', 'clock', 'chain', 'pools', 'hold_ttl_ms', 'hold_ttl_max_ms',
    'retention_ms', 'refused_retention_ms')
if not meta[1] then
    return redis.error_reply('UNINSTALLED this partition holds no state')
end
local epoch, seq, chain, pool_count = tonumber(meta[1]), tonumber(meta[2]), meta[4], tonumber(meta[5])
local DEFAULT_TTL_MS, DEFAULT_TTL_MAX_MS = tonumber(meta[6]), tonumber(meta[7])
local RETENTION_MS, REFUSED_RETENTION_MS = tonumber(meta[8]), tonumber(meta[9])

local clock = redis.call('TIME')
local now = math.max(tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000), tonumber(meta[3]))
