-- restore: puts a partition that was folded from the ledger into the store, in steps. From the first to the last of them
-- meta has no epoch, so that every batch answers UNINSTALLED; the last one makes it whole at one instant.
--
-- KEYS     meta stock holds due wake ended refused buyers journal
-- ARGV     step, token of the restorer, then of each step:
--   close  epoch that the partition is thought to have ('': none), silence_ms, schema, name, value … of the settings
--          RETURNS {'closed', epoch|'', seq|'', chain|''}: where it stood; {'moved'}: its epoch is another one; {'busy'}:
--          another restorer has given a sign of life within silence_ms
--   beat   a sign of life      RETURNS 'alive'
--   clear  RETURNS 'cleared': nothing is left but the journal
--   drop   stream ids of the journal that are given up      RETURNS how many there were
--   fill   kind, msgpack {row, …}; kinds and rows are those of include/filling.lua
--          RETURNS {seq, …}: of live holds whose key a later one of these rows has
--   seal   msgpack {epoch, seq, chain, clock_ms, pools, stream_ms, reason, details, {twice, …}}: the place that the ledger
--          has come to under a new epoch, and the time in its stream id; writes the `restore` entry behind it, for the
--          ledger to have before anything is decided: so no epoch can begin twice. `twice` as `give_back` below has it
--          RETURNS {seq, chain, now_ms}
--   open   RETURNS the epoch
--          All but close answer the error OVERTAKEN where the token is not that of the last one who closed.
-- READS meta stock holds due      WRITES meta stock holds due wake ended refused buyers journal
-- COST     O(1), but fill: O(rows), and drop
--
-- How records, counters and deadlines are laid out is known by the includes alone, as for every other script.

local META, STOCK, HOLDS, DUE, WAKE = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local ENDED, REFUSED, BUYERS, JOURNAL = KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local pack, unpack_msgpack, bytes, from_bytes = cmsgpack.pack, cmsgpack.unpack, struct.pack, struct.unpack
local step, token = ARGV[1], ARGV[2]
local clock = redis.call('TIME')
local server_ms = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)

local known = redis.call('HMGET', META, 'epoch', 'restoring', 'beat', 'clock')
if step == 'close' then
    if (known[1] or '') ~= ARGV[3] then return {'moved'} end
    if known[2] and known[2] ~= token and tonumber(known[3]) + tonumber(ARGV[4]) > server_ms then return {'busy'} end
    if known[1] then
        local place = redis.call('HMGET', META, 'epoch', 'seq', 'chain')
        redis.call('HSET', META, 'was_epoch', place[1], 'was_seq', place[2], 'was_chain', place[3])
    end
    redis.call('HDEL', META, 'epoch', 'seq', 'chain', 'pools', 'next_epoch')
    redis.call('HSET', META, 'restoring', token, 'beat', string.format('%d', server_ms), 'schema', unpack(ARGV, 5))
    local was = redis.call('HMGET', META, 'was_epoch', 'was_seq', 'was_chain')
    return {'closed', was[1] or '', was[2] or '', was[3] or ''}
end
if known[1] or known[2] ~= token then
    return redis.error_reply('OVERTAKEN another restorer has taken this partition over')
end
redis.call('HSET', META, 'beat', string.format('%d', server_ms))
if step == 'beat' then
    return 'alive'
elseif step == 'clear' then
    redis.call('UNLINK', STOCK, HOLDS, DUE, WAKE, ENDED, REFUSED, BUYERS)
    return 'cleared'
elseif step == 'drop' then
    return redis.call('XDEL', JOURNAL, unpack(ARGV, 3))
elseif step == 'open' then
    local next_epoch = redis.call('HGET', META, 'next_epoch')
    redis.call('HSET', META, 'epoch', next_epoch)
    redis.call('HDEL', META, 'next_epoch', 'restoring', 'beat', 'was_epoch', 'was_seq', 'was_chain')
    return next_epoch
end

-- What the includes know a batch by. A row of `queue` brings the instant itself, hence now = 0 while filling.
local epoch, seq, chain, pool_count, now = 0, 0, '', 0, 0
local place = step == 'seal' and unpack_msgpack(ARGV[3])
if place then
    epoch, seq, chain, pool_count = place[1], place[2], place[3], place[5]
    now = math.max(server_ms, place[4], tonumber(known[4] or 0))
end

--@include include/slices.lua
--@include include/journal.lua
--@include include/stock.lua
--@include include/changes.lua
--@include include/records.lua
--@include include/deadlines.lua
--@include include/filling.lua

if step == 'fill' then
    local twice = fill[ARGV[3]](unpack_msgpack(ARGV[4]))
    flush_stock()
    flush_records('')
    flush_deadlines()
    return twice or {}
end

-- A store that has lost its memory of keys lets one key make two holds; only the later one can be found by it, so the
-- units of the other go back. {digest, made seq, buyer, expires_ms, {line, …}}
local function give_back(hold)
    local changes = {}
    for _, line in ipairs(hold[5]) do
        if line[3] > 0 then change(changes, pool_of(line[1], line[2]), 0, line[3], -line[3], 0, 0) end
    end
    record('release', hold[1], hold[2], '', '', hold[3], hold[4], '', 'key-used-again', shortfall(changes), changes, false, '')
end

-- The ledger's reader goes on behind the stream id of the ledger's last batch: the next one must not be below it, though
-- this stream be new and its server's clock slow.
if server_ms <= place[6] then
    local id = string.format('%d-0', place[6] + 1)
    redis.call('XADD', JOURNAL, id, 'moved', 'on')
    redis.call('XDEL', JOURNAL, id)
end
record('restore', '', 0, '', '', '', 0, '', place[7], 0, {}, place[8], '')
for _, hold in ipairs(place[9]) do give_back(hold) end
flush_stock()
local head = record_journal()
redis.call('HSET', META, 'next_epoch', string.format('%d', epoch), 'seq', string.format('%d', seq), 'chain', head,
    'clock', string.format('%d', now), 'pools', string.format('%d', pool_count))
return {seq, head, now}
