-- policy: {verb, digest|'', fingerprint, key|'', sku, replace, {field: value, …}}
-- Fields: class, hold_ttl_ms, hold_ttl_max_ms, max_per_buyer, opens_at_ms, closes_at_ms, partition_key, durability,
-- pools ({pool: {safety_stock|-1, oversell_allowance|-1}}, -1: as it is, or 0 where the policy is replaced).
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

verbs.policy = function(c)
    local sku, replace, fields = c[5], c[6], c[7]
    local s = sku_of(sku)
    local created = not s
    local partition_key = fields.partition_key or (replace and '') or (s and s.partition_key)
    if s and partition_key ~= s.partition_key and not is_empty(s) then
        return refuse('policy-refused', {
            message = 'partition_key can change only while nothing is on hand, held or committed'})
    end
    s = s or create_sku(sku)
    s.shut = nil -- the rest of the batch asks the new policy
    local set = set_fields(s, fields, replace)
    local moved = set_pools(s, fields.pools or {}, replace)
    if s.max_per_buyer > 0 and s.counted == NOT_COUNTED then
        s.counted, counted_skus = was_ever_promised(s) and COUNTED_SINCE or COUNTED_ALL, true
        touch_sku(s)
    end
    if created or set or moved then record_policy(s, c, '') end
    return {POLICY, 0, created, policy_of(s), epoch, seq}
end
