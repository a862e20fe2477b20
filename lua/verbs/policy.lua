-- policy: {verb, digest|'', fingerprint, key|'', sku, replace, {field: value, …}[, aim, moves]}
-- Fields: class, hold_ttl_ms, hold_ttl_max_ms, max_per_buyer, opens_at_ms, closes_at_ms, partition_key, durability,
-- pools ({pool: {safety_stock|-1, oversell_allowance|-1}}, -1: as it is, or 0 where the policy is replaced).
-- aim: '' decide where the SKU is or would be made; `here` only if it lives here; `settle` it lives here from now on, unless
-- it has moved as often as `moves` and on; else the partition that it leaves for, which it may while nothing is on hand,
-- held or committed. What it leaves keeps its policy and says where it went; so there is never a second place that takes
-- commands, and whoever stops half-way can be followed.
-- READS stock      WRITES stock journal
-- REPLIES {POLICY, replayed, created, policy, epoch, seq}

local function is_empty(s)
    for _, name in ipairs(s.pools) do
        local p = pool_of(s.sku, name)
        if p.available ~= 0 or p.held ~= 0 or p.committed ~= 0 then return false end
    end
    return true
end

local function was_ever_promised(s)
    for _, name in ipairs(s.pools) do
        local p = pool_of(s.sku, name)
        if p.held ~= 0 or p.committed ~= 0 or p.past ~= 0 then return true end
    end
    return false
end

local function set_fields(s, fields, replace)
    local changed = false
    for name, member in pairs(FIELDS) do
        local value = fields[name]
        if value == nil and replace then value = UNSET[name] or 0 end
        if value ~= nil and value ~= s[member] then
            s[member] = value
            changed = true
        end
    end
    raised[s.sku] = s.durability ~= '' and s.durability or nil
    if changed then touch_sku(s) end
    return changed
end

local function set_pools(s, given, replace)
    local changed = false
    for name in pairs(given) do
        if not pool_of(s.sku, name) then create_pool(s, name) end
    end
    for _, name in ipairs(s.pools) do
        local p, wanted = pool_of(s.sku, name), given[name] or {-1, -1}
        for i, member in ipairs({'safety_stock', 'oversell_allowance'}) do
            local value = wanted[i]
            if value < 0 then value = replace and 0 or p[member] end
            if value ~= p[member] then
                p[member] = value
                touch_pool(p)
                changed = true
            end
        end
    end
    return changed
end

-- The refusal where the SKU is not here or cannot go where it should, or nil.
local function misplaced(s, sku, aim, moves)
    if aim == 'here' and not s then return elsewhere_refusal({sku = sku}) end
    if not s or not s.elsewhere then return nil end
    if aim == s.elsewhere then return nil end
    -- Each place on the way of a SKU has counted more moves than the one before. Where one has counted less, somebody has
    -- stopped half-way of moving it back there: it lives nowhere, and goes where this command sends it.
    if aim ~= '' and aim ~= 'here' and s.moves < moves then return nil end
    return elsewhere_refusal(s)
end

-- Whether this has changed where the SKU is.
local function place(s, aim, moves)
    local from, moved = s.elsewhere, s.moves
    if aim == 'settle' then
        s.elsewhere, s.moves = nil, math.max(s.moves or 0, moves)
    elseif aim ~= '' and aim ~= 'here' and (aim ~= from or moved < moves) then
        s.elsewhere, s.moves = aim, math.max(s.moves or 0, moves) + 1
    end
    if s.elsewhere == from and s.moves == moved then return false end
    touch_sku(s)
    return true
end

verbs.policy = function(c)
    local sku, replace, fields, aim, moves = c[5], c[6], c[7], c[8] or '', c[9] or 0
    local s = sku_of(sku)
    local refusal = misplaced(s, sku, aim, moves)
    if refusal then return refusal end
    local created = not s
    local leaves = s and not s.elsewhere and aim ~= '' and aim ~= 'here' and aim ~= 'settle'
    local partition_key = fields.partition_key or (replace and '') or (s and s.partition_key)
    if s and (leaves or partition_key ~= s.partition_key) and not is_empty(s) then
        return refuse('policy-refused', {
            message = 'partition_key can change only while nothing is on hand, held or committed'})
    end
    s = s or create_sku(sku)
    s.shut = nil -- the rest of the batch asks the new policy
    local went = place(s, aim, moves)
    local set = set_fields(s, fields, replace)
    local moved = set_pools(s, fields.pools or {}, replace)
    if s.max_per_buyer > 0 and s.counted == NOT_COUNTED then
        s.counted, counted_skus = was_ever_promised(s) and COUNTED_SINCE or COUNTED_ALL, true
        touch_sku(s)
    end
    if created or set or moved or went then record_policy(s, c, '') end
    return {POLICY, 0, created, policy_of(s), epoch, seq}
end
