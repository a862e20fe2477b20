-- rules: what the policies of a new hold's SKUs say to it.      READS stock      WRITES nothing

-- What a SKU's policy says to new holds at this instant, found once a batch.
local function find_rules(s)
    local reason, detail = window(s)
    s.shut = reason and {reason, detail} or false
    s.most_ms = s.ttl_max_ms > 0 and s.ttl_max_ms or DEFAULT_TTL_MAX_MS
    s.usual_ms = math.min(s.ttl_ms > 0 and s.ttl_ms or DEFAULT_TTL_MS, s.most_ms)
end

-- The refusal, or nil, the time that the hold will live, and whether a limit per buyer applies. Lines begin at `at`.
local function rules_of(c, at, asked_ms)
    local ttl_ms, most_ms, limited = nil, nil, false
    for i = at, #c, 3 do
        local s = skus[c[i]]
        if not s then return refuse('unknown-sku', {sku = c[i]}) end
        if s.shut == nil then find_rules(s) end
        if s.shut then return refuse(s.shut[1], s.shut[2]) end
        if not ttl_ms or s.usual_ms < ttl_ms then ttl_ms = s.usual_ms end
        if not most_ms or s.most_ms < most_ms then most_ms = s.most_ms end
        if s.max_per_buyer > 0 then limited = true end
    end
    if asked_ms > most_ms then
        return refuse_field('ttl_seconds', string.format('at most %d, the longest that the policy allows', most_ms / 1000))
    end
    return nil, asked_ms > 0 and asked_ms or ttl_ms, limited
end

local function limit_refusal_of_hold(buyer, lines)
    if buyer == '' then return refuse_field('buyer', 'required, because a SKU has a limit per buyer') end
    return limit_refusal(buyer, units_by_sku(needs_of(lines)))
end
