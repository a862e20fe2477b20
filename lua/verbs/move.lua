-- move: {verb, digest, fingerprint, key, kind, sku, pool, quantity, reason|'', reference|'', hold id|'', to_pool|'',
--        hold digest|'', hold seq|0, recalled}
-- `recalled`: 0 where the ledger is to be asked for a hold that is not here, false where it is not, or knows none; or the
--        hold as it knows it (records.lua: revived_record)
-- READS stock holds due buyers      WRITES stock holds due ended buyers journal
-- REPLIES {ENTRY, replayed, epoch, seq, at_ms, the entry as the journal has it, chain}

local GIVES_BACK = {cancel = true, ['return'] = true}

-- The lines of a sold hold after the buyer has given `q` units of the pool back, or nil where it did not sell so many.
local function lines_given_back(r, sku, pool, q)
    local lines, left = {}, q
    for i, line in ipairs(r.lines) do
        local share = 0
        if line[1] == sku and line[2] == pool then share = math.min(left, line[4] - line[6]) end
        left = left - share
        lines[i] = {line[1], line[2], line[3], line[4], line[5], line[6] + share, line[7] or false}
    end
    return left == 0 and lines or nil
end

-- The hold that is to have its units given back. One that was forgotten here and that the ledger still knows is remembered
-- once more if they are, so that what is given back again finds what has been given back already.
local function hold_to_give_back(digest, made_seq, recalled)
    local r = hold_of(digest, made_seq)
    if r or not recalled or recalled == 0 or record_of(digest) then return r end
    r = revived_record(recalled)
    r.recalled = true
    records[digest] = r
    return r
end

local function give_back_sold(r, lines, sku, units)
    r.lines = lines
    touch_record(r)
    add_share(sku, r.buyer, -units)
    if r.recalled then
        r.recalled = nil
        queue(ended_queue, r.digest, RETENTION_MS)
    end
end

verbs.move = function(c)
    local kind, sku, quantity = c[5], c[6], c[8]
    local s = sku_of(sku)
    if not s then
        if kind ~= 'receipt' then return refuse('unknown-sku', {sku = sku}) end
        s = create_sku(sku)
    end
    if s.elsewhere then return elsewhere_refusal(s) end
    local sold, lines
    if c[11] ~= '' and GIVES_BACK[kind] then
        sold = hold_to_give_back(c[13], c[14], c[15])
        -- Not remembered for the key until the ledger has been asked.
        if not sold then return refuse('unknown-hold', {}), false, c[15] == 0 end
        lines = sold.state == COMMITTED and lines_given_back(sold, sku, c[7], quantity)
        if not lines then return movement_refused('the hold has not sold so many units of this SKU from this pool') end
    end
    -- A pool is made only by what puts units into it; the others find it empty and are refused, and it stays unmade.
    local made = pool_of(sku, c[7])
    local p = made or {
        sku = sku, name = c[7], available = 0, held = 0, committed = 0, changed = true}
    local puts_in = kind == 'receipt' or kind == 'return' or (kind == 'adjustment' and quantity > 0)
    if not made and puts_in then p = create_pool(s, c[7]) end
    local takes = kind == 'damage' or kind == 'transfer' or (kind == 'adjustment' and quantity < 0)
    if made and takes then
        -- What is overdue is promised to nobody: it is there to be moved, and its absence is no shortfall.
        local beyond = math.max(0, p.oversell_allowance - p.safety_stock)
        if not take_back(p, math.abs(quantity) + beyond) then return {AGAIN} end
    end
    local to = kind == 'transfer' and quantity <= p.available and (pool_of(sku, c[12]) or create_pool(s, c[12]))
    local changes, refusal = moves[kind](p, quantity, to)
    if refusal then return refusal end
    if sold then give_back_sold(sold, lines, sku, quantity) end
    local entry = record(kind, '', 0, c[4], c[3], sold and sold.buyer or '', 0, c[10], c[9], shortfall(changes), changes,
        false, c[11])
    return {ENTRY, 0, epoch, seq, now, unpack_msgpack(entry), false}
end
