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
--   fill   kind, msgpack {row, …}; kinds and rows are those of `fill` below
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

local fill = {}

-- {sku, pool, number, available, held, committed, damaged, in_transit, safety_stock, oversell_allowance, past}
function fill.pools(rows)
    for _, row in ipairs(rows) do
        touch_pool({
            sku = row[1], name = row[2], number = row[3], available = row[4], held = row[5], committed = row[6],
            damaged = row[7], in_transit = row[8], safety_stock = row[9], oversell_allowance = row[10], past = row[11]})
    end
end

-- {sku, ttl_ms, ttl_max_ms, max_per_buyer, opens_at_ms, closes_at_ms, class, partition_key, counted, {pool name, …}, durability,
-- elsewhere|'', moves|0}
function fill.skus(rows)
    for _, row in ipairs(rows) do
        touch_sku({
            sku = row[1], ttl_ms = row[2], ttl_max_ms = row[3], max_per_buyer = row[4], opens_at_ms = row[5],
            closes_at_ms = row[6], class = row[7], partition_key = row[8], counted = row[9], pools = row[10],
            durability = row[11], elsewhere = row[12] ~= '' and row[12] or nil, moves = row[13] ~= 0 and row[13] or nil})
    end
end

-- A pool as far as deadlines need to know it: its number. It counts as changed already, so that it is not written.
local function numbered(sku, name, number)
    pools[sku] = pools[sku] or {}
    pools[sku][name] = pools[sku][name] or {sku = sku, name = name, number = number, changed = true}
end

-- {digest, state, fingerprint, buyer, metadata, asked_ttl_ms, {line, …}, epoch, created_ms, ttl_ms, {epoch, seq, ended_ms,
-- reference, reason, reacquired}|false, original|false, seq, expires_ms, {number of a line's pool, …}}: members and lines
-- as records.lua has them
function fill.holds(rows)
    local digests, twice = {}, {}
    for i, row in ipairs(rows) do digests[i] = row[1] end
    load_records(digests)
    for _, row in ipairs(rows) do
        for i, number in ipairs(row[15]) do numbered(row[7][i][1], row[7][i][2], number) end
        local r = revived_record(row)
        local before = records[r.digest] and record_of(r.digest)
        if before and before.state == HELD then twice[#twice + 1] = before.seq end
        records[r.digest] = r
        touch_record(r)
        if r.state == HELD then schedule(r) end
    end
    return twice
end

-- Numbers of pools, after all holds: when the first of each is due.
function fill.wakes(rows)
    for i = 1, #rows do rewake[i] = rows[i] end
end

-- {digest, fingerprint, digest of the hold that it is about|'', reply}
function fill.answers(rows)
    for _, row in ipairs(rows) do
        touch_record({digest = row[1], state = REMEMBERED, fingerprint = row[2], hold = row[3], reply = row[4]})
    end
end

-- {digest, forget_at_ms}, in order of time
function fill.queue(rows)
    for _, row in ipairs(rows) do queue(ended_queue, row[1], row[2]) end
end

-- {sku, buyer, units}
function fill.shares(rows)
    local values = {}
    for _, row in ipairs(rows) do
        values[#values + 1] = row[1] .. NUL .. row[2]
        values[#values + 1] = string.format('%d', row[3])
    end
    write_all('HSET', BUYERS, values)
end

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
