-- install: makes a partition, unless it is there.
--
-- KEYS     meta
-- ARGV     epoch, seq, chain, schema, then name, value … of the settings that all processes must agree on
-- RETURNS  the whole of meta, as it is now
-- READS meta      WRITES meta

if redis.call('EXISTS', KEYS[1]) == 0 then
    redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'seq', ARGV[2], 'chain', ARGV[3], 'schema', ARGV[4], 'clock', '0',
        'pools', '0', unpack(ARGV, 5))
end
return redis.call('HGETALL', KEYS[1])
