-- cart: lines of a command taken together.      READS stock, buyers      WRITES nothing

-- {{sku, pool, quantity}, …}
local function lines_of(c, at)
    local lines = {}
    for i = at, #c, 3 do lines[#lines + 1] = {c[i], c[i + 1], c[i + 2]} end
    return lines
end

-- Lines of one pool add up: {{pool|false, quantity, sku, pool name}, …} in the order of their first line.
local function needs_of(lines)
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
        local own = need[5] or 0 -- an amended hold asks for more than it has: the refusal speaks of its whole line
        lines[i] = {need[3], need[4], need[2] + own, (need[1] and sellable(need[1]) or 0) + own}
    end
    return refuse('insufficient-stock', {lines = lines})
end

-- Reason and detail of why the SKU takes no new holds at this instant, or nil.
local function window(s)
    if s.elsewhere then return 'sku-elsewhere', elsewhere_refusal(s)[4] end
    if s.opens_at_ms > now then return 'sale-not-open', {sku = s.sku, opens_at_ms = s.opens_at_ms} end
    if s.closes_at_ms > 0 and s.closes_at_ms <= now then
        return 'sale-closed', {sku = s.sku, closes_at_ms = s.closes_at_ms}
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

-- `units`: {{sku, units more}, …}. The refusal of the first SKU whose limit they would pass, or nil. What is overdue
-- counts against no limit, so it is taken back before a buyer is refused.
local function limit_refusal(buyer, units)
    if buyer == '' then return nil end
    for i = 1, #units do
        local sku, more = units[i][1], units[i][2]
        local s = sku_of(sku)
        if s.max_per_buyer > 0 and more > 0 and share_of(sku, buyer) + more > s.max_per_buyer then
            for _, name in ipairs(s.pools) do
                if not take_back(pool_of(sku, name), math.huge) then return {AGAIN} end
            end
            local already = share_of(sku, buyer)
            if already + more > s.max_per_buyer then
                return refuse('purchase-limit-exceeded', {sku = sku, limit = s.max_per_buyer, already = already})
            end
        end
    end
end
