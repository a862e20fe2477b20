-- stock: counters of pools and policies of SKUs.      READS stock      WRITES stock
-- A pool: field sku NUL pool → {number, available, held, committed, damaged, in_transit, safety_stock, oversell_allowance}.
-- A SKU: field sku → {ttl_ms, ttl_max_ms, max_per_buyer, opens_at_ms, closes_at_ms, class, partition_key, counted, {pool names}},
-- 0 or '' where not set. NUL is legal in no name, so no two fields are alike.

local NUL, DEFAULT = '\0', 'default'
local ON_HAND_MAX = 9e15 -- doubles are exact to 2^53

local skus, pools, changed_skus, changed_pools = {}, {}, {}, {}

local function stock_fields(fields, sku, pool)
    if skus[sku] == nil then
        skus[sku] = false
        fields[#fields + 1] = sku
    end
    local field = sku .. NUL .. pool
    if pools[field] == nil then
        pools[field] = false
        fields[#fields + 1] = field
    end
end

local function decode(field, raw)
    local a = cmsgpack.unpack(raw)
    local at = string.find(field, NUL, 1, true)
    if at then
        pools[field] = {
            sku = string.sub(field, 1, at - 1), name = string.sub(field, at + 1), field = field, number = a[1],
            available = a[2], held = a[3], committed = a[4], damaged = a[5], in_transit = a[6], safety_stock = a[7],
            oversell_allowance = a[8]}
    else
        skus[field] = {
            sku = field, ttl_ms = a[1], ttl_max_ms = a[2], max_per_buyer = a[3], opens_at_ms = a[4], closes_at_ms = a[5],
            class = a[6], partition_key = a[7], counted = a[8], pools = a[9]}
    end
end

local function load_stock(fields)
    local values = read_all(STOCK, fields)
    for i = 1, #fields do
        if values[i] then decode(fields[i], values[i]) end
    end
end

local function sku_of(sku)
    if skus[sku] == nil then
        skus[sku] = false
        load_stock({sku})
    end
    return skus[sku]
end

local function pool_of(sku, name)
    local field = sku .. NUL .. name
    if pools[field] == nil then
        pools[field] = false
        load_stock({field})
    end
    return pools[field]
end

local function touch_sku(s)
    if not s.changed then
        s.changed = true
        changed_skus[#changed_skus + 1] = s
    end
end

local function touch_pool(p)
    if not p.changed then
        p.changed = true
        changed_pools[#changed_pools + 1] = p
    end
end

local function create_pool(s, name)
    pool_count = pool_count + 1
    local p = {
        sku = s.sku, name = name, field = s.sku .. NUL .. name, number = pool_count, available = 0, held = 0,
        committed = 0, damaged = 0, in_transit = 0, safety_stock = 0, oversell_allowance = 0}
    pools[p.field] = p
    s.pools[#s.pools + 1] = name
    touch_pool(p)
    touch_sku(s)
    return p
end

local function create_sku(sku)
    local s = {
        sku = sku, ttl_ms = 0, ttl_max_ms = 0, max_per_buyer = 0, opens_at_ms = 0, closes_at_ms = 0, class = '',
        partition_key = '', counted = false, pools = {}}
    skus[sku] = s
    create_pool(s, DEFAULT)
    return s
end

local function sellable(p)
    return p.available - p.safety_stock + p.oversell_allowance
end

local in_shortfall = false -- some pool has been below zero within this batch: entries must look for theirs

-- Carries out one step of an entry in one pool and returns it as the journal writes it.
local function change(p, outside, available, held, committed, damaged)
    p.available = p.available + available
    p.held = p.held + held
    p.committed = p.committed + committed
    p.damaged = p.damaged + damaged
    if not p.changed then touch_pool(p) end
    if sellable(p) < 0 then in_shortfall = true end
    return {p.sku, p.name, outside, available, held, committed, damaged, 0}
end

-- Units promised beyond what the pools of these changes can bear; a pool in two steps of an entry counts once.
local function shortfall(changes)
    if not in_shortfall then return 0 end
    local missing, seen = 0, nil
    for i = 1, #changes do
        local p = pools[changes[i][1] .. NUL .. changes[i][2]]
        if sellable(p) < 0 then
            seen = seen or {}
            if not seen[p] then missing = missing - sellable(p) end
            seen[p] = true
        end
    end
    return missing
end

local function flush_stock()
    local values = {}
    for i = 1, #changed_pools do
        local p = changed_pools[i]
        values[#values + 1] = p.field
        values[#values + 1] = cmsgpack.pack({p.number, p.available, p.held, p.committed, p.damaged, p.in_transit,
            p.safety_stock, p.oversell_allowance})
    end
    for i = 1, #changed_skus do
        local s = changed_skus[i]
        values[#values + 1] = s.sku
        values[#values + 1] = cmsgpack.pack({s.ttl_ms, s.ttl_max_ms, s.max_per_buyer, s.opens_at_ms, s.closes_at_ms,
            s.class, s.partition_key, s.counted, s.pools})
    end
    write_all('HSET', STOCK, values)
end
