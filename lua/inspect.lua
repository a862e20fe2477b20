-- inspect: every counter at one instant, for the audit.
--
-- KEYS     meta stock holds due
-- RETURNS  {epoch, seq, chain, clock_ms, stored records, deadlines, stock field, value, …}
-- READS    meta stock holds due      WRITES nothing
-- COST     O(pools): 2 ms for 10,000

local meta = redis.call('HMGET', KEYS[1], 'epoch', 'seq', 'chain', 'clock')
if not meta[1] then
    return redis.error_reply('UNINSTALLED this partition holds no state')
end
local stock = redis.call('HGETALL', KEYS[2])
local all = {meta[1], meta[2], meta[3], meta[4], redis.call('HLEN', KEYS[3]), redis.call('ZCARD', KEYS[4])}
for i = 1, #stock do all[i + 6] = stock[i] end
return all
