-- filling: what a ledger was folded into, a kind of row at a time, put into a partition that is empty.
-- READS holds      WRITES due, ended, buyers (the flushes of stock, records and deadlines do the rest)

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
