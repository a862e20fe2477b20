-- amend: {verb, digest|'', fingerprint, key|'', hold digest, hold seq, sku, pool, quantity, …}
-- All or nothing; the hold's own units do not count against it, the deadline stays.
-- READS stock holds due buyers      WRITES stock holds due wake ended buyers journal      REPLIES {HOLD, replayed, …}

-- What the pools would have to give (or, negative, get back) for these lines: needs as cart.lua makes them, with what
-- the hold has of each as a fifth member.
local function differences(r, lines)
    local needs = needs_of(lines)
    local at = {}
    for i, need in ipairs(needs) do at[need[3] .. NUL .. need[4]] = i end
    for _, line in ipairs(r.lines) do
        local i = at[line[1] .. NUL .. line[2]]
        if i then
            needs[i][2] = needs[i][2] - line[3]
            needs[i][5] = (needs[i][5] or 0) + line[3]
        else
            needs[#needs + 1] = {pool_of(line[1], line[2]), -line[3], line[1], line[2]}
            at[line[1] .. NUL .. line[2]] = #needs
        end
    end
    return needs
end

local function rules_refusal(r, needs)
    for _, need in ipairs(needs) do
        local s = sku_of(need[3])
        if not s then return refuse('unknown-sku', {sku = need[3]}) end
        if need[2] > 0 then
            local reason, detail = window(s)
            if reason then return refuse(reason, detail) end
            if s.max_per_buyer > 0 and r.buyer == '' then
                return refuse_field('lines', 'a SKU with a limit per buyer needs a hold with a buyer')
            end
        end
    end
    return limit_refusal(r.buyer, units_by_sku(needs)) or stock_refusal(needs)
end

verbs.amend = function(c)
    local r = hold_of(c[5], c[6])
    if not r then return refuse('unknown-hold', {}) end
    if r.state ~= HELD then return refuse_final(r) end
    local lines = lines_of(c, 7)
    local needs = differences(r, lines)
    local refusal = rules_refusal(r, needs)
    if refusal then return refusal end
    local changes = {}
    for _, need in ipairs(needs) do
        if need[2] ~= 0 then
            change(changes, need[1], 0, -need[2], need[2], 0, 0)
            add_share(need[3], r.buyer, need[2])
        end
    end
    if #changes == 0 then return hold_reply(r, 0) end
    unschedule(r)
    r.original = r.original or r.lines
    r.lines = lines
    schedule(r)
    record_hold('amend', r, changes, c, '', '', {lines = lines})
    r.last = {epoch, 0, '', '', seq, 0}
    touch_record(r)
    return hold_reply(r, 0)
end
