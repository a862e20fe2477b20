-- cart: lines of a command taken together.      READS stock, buyers      WRITES nothing

-- Lines of one pool add up: {{pool|false, quantity, sku, pool name}, …} in the order of their first line.
local function needs_of(lines)
    if #lines == 1 then
        local line = lines[1]
        return {{pool_of(line[1], line[2]), line[3], line[1], line[2]}}
    end
    local needs, by_field = {}, {}
    for i = 1, #lines do
        local line = lines[i]
        local field = line[1] .. NUL .. line[2]
        local need = by_field[field]
        if need then
            need[2] = need[2] + line[3]
        else
            need = {pool_of(line[1], line[2]), line[3], line[1], line[2]}
            by_field[field] = need
            needs[#needs + 1] = need
        end
    end
    return needs
end

-- Makes sure that the needs can be met, taking back what is overdue: nil, or the refusal that names every short line,
-- or AGAIN where that cannot be known within this batch.
local function stock_refusal(needs)
    local short
    for i = 1, #needs do
        local p, wanted = needs[i][1], needs[i][2]
        if wanted > 0 and (not p or sellable(p) < wanted) then
            if p and not take_back(p, wanted) then return {AGAIN} end
            if not p or sellable(p) < wanted then
                short = short or {}
                short[#short + 1] = needs[i]
            end
        end
    end
    if not short then return nil end
    local lines = {}
    for i, need in ipairs(short) do
        lines[i] = {need[3], need[4], need[2], need[1] and sellable(need[1]) or 0}
    end
    return refuse('insufficient-stock', {lines = lines})
end

local function window_refusal(s)
    if s.opens_at_ms > now then
        return refuse('sale-not-open', {sku = s.sku, opens_at_ms = s.opens_at_ms})
    end
    if s.closes_at_ms > 0 and s.closes_at_ms <= now then
        return refuse('sale-closed', {sku = s.sku, closes_at_ms = s.closes_at_ms})
    end
end

-- {{sku, units}, …} over all pools, in the order of the lines: what per-buyer limits count.
local function units_by_sku(needs)
    local units, at = {}, {}
    for i = 1, #needs do
        local sku = needs[i][3]
        if not at[sku] then
            at[sku] = #units + 1
            units[at[sku]] = {sku, 0}
        end
        units[at[sku]][2] = units[at[sku]][2] + needs[i][2]
    end
    return units
end
