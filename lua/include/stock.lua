-- stock: counters of pools and policies of SKUs.      READS stock      WRITES stock
-- A pool: field sku NUL pool → {number, available, held, committed, damaged, in_transit, safety_stock, oversell_allowance,
-- past}; past: units that were committed and no longer are.
-- A SKU: field sku → {ttl_ms, ttl_max_ms, max_per_buyer, opens_at_ms, closes_at_ms, class, partition_key, counted, {pool names},
-- durability[, elsewhere, moves]}, 0 or '' where not set. NUL is legal in no name, so no two fields are alike.
-- elsewhere: the partition that a SKU went to which has left this one; moves: how often it has moved, over all partitions.

local NUL, DEFAULT = '\0', 'default'
local ON_HAND_MAX = 9e15 -- doubles are exact to 2^53

-- skus: sku → policy or false; pools: sku → {pool name → counters or false}. nil: not asked for yet.
local skus, pools, changed_skus, changed_pools = {}, {}, {}, {}
local counted_skus = false -- some SKU of this batch has its buyers counted
local raised = {} -- sku → durability, of those of this batch whose policy asks for one

-- Notes in `fields` what of this line is not loaded yet.
local function stock_fields(fields, sku, name)
    local of_sku = pools[sku]
    if not of_sku then
        of_sku = {}
        pools[sku] = of_sku
        fields[#fields + 1] = sku
    end
    if of_sku[name] == nil then
        of_sku[name] = false
        fields[#fields + 1] = sku .. NUL .. name
    end
end

local function decode(field, raw)
    local a = unpack_msgpack(raw)
    local at = string.find(field, NUL, 1, true)
    if not at then
        counted_skus = counted_skus or a[8] ~= 0
        raised[field] = a[10] ~= '' and a[10] or nil
        skus[field] = {
            sku = field, ttl_ms = a[1], ttl_max_ms = a[2], max_per_buyer = a[3], opens_at_ms = a[4], closes_at_ms = a[5],
            class = a[6], partition_key = a[7], counted = a[8], pools = a[9], durability = a[10] or '',
            elsewhere = a[11] ~= '' and a[11] or nil, moves = a[12]}
        return
    end
    local sku, name = string.sub(field, 1, at - 1), string.sub(field, at + 1)
    pools[sku][name] = {
        sku = sku, name = name, number = a[1], available = a[2], held = a[3], committed = a[4], damaged = a[5],
        in_transit = a[6], safety_stock = a[7], oversell_allowance = a[8], past = a[9]}
end

local function load_stock(fields)
    local values = read_all(STOCK, fields)
    for i = 1, #fields do
        if values[i] then
            decode(fields[i], values[i])
        elseif not string.find(fields[i], NUL, 1, true) then
            skus[fields[i]] = false
        end
    end
end

local function pool_of(sku, name)
    local of_sku = pools[sku]
    local p = of_sku and of_sku[name]
    if p == nil then
        local fields = {}
        stock_fields(fields, sku, name)
        load_stock(fields)
        p = pools[sku][name]
    end
    return p
end

local function sku_of(sku)
    if skus[sku] == nil then pool_of(sku, DEFAULT) end
    return skus[sku]
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
        sku = s.sku, name = name, number = pool_count, available = 0, held = 0, committed = 0, damaged = 0,
        in_transit = 0, safety_stock = 0, oversell_allowance = 0, past = 0}
    pools[s.sku][name] = p
    s.pools[#s.pools + 1] = name
    touch_pool(p)
    touch_sku(s)
    return p
end

local function create_sku(sku)
    local s = {
        sku = sku, ttl_ms = 0, ttl_max_ms = 0, max_per_buyer = 0, opens_at_ms = 0, closes_at_ms = 0, class = '',
        partition_key = '', counted = 0, pools = {}, durability = ''}
    skus[sku] = s
    create_pool(s, DEFAULT)
    return s
end

-- What a command for a SKU is told that has left this partition; whoever sent it goes on there.
local function elsewhere_refusal(s)
    return refuse('sku-elsewhere', {sku = s.sku, partition = s.elsewhere or '', moves = s.moves or 0})
end

local function sellable(p)
    return p.available - p.safety_stock + p.oversell_allowance
end

local function flush_stock()
    local values = {}
    for i = 1, #changed_pools do
        local p = changed_pools[i]
        values[#values + 1] = p.sku .. NUL .. p.name
        values[#values + 1] = pack({p.number, p.available, p.held, p.committed, p.damaged, p.in_transit,
            p.safety_stock, p.oversell_allowance, p.past})
    end
    for i = 1, #changed_skus do
        local s = changed_skus[i]
        values[#values + 1] = s.sku
        values[#values + 1] = pack({s.ttl_ms, s.ttl_max_ms, s.max_per_buyer, s.opens_at_ms, s.closes_at_ms,
            s.class, s.partition_key, s.counted, s.pools, s.durability, s.elsewhere or (s.moves and ''), s.moves})
    end
    write_all('HSET', STOCK, values)
end
