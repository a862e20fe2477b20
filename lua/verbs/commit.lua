-- commit: {verb, digest|'', fingerprint, key|'', hold digest, hold seq, reference|'', reacquire,
--          fingerprint without its lines, sku, pool, quantity, …}; no lines: everything
-- READS stock holds due buyers      WRITES stock holds due ended buyers journal
-- REPLIES {HOLD, replayed, …} as records.lua makes it

-- Quantities to commit, one a line of the hold; nil where more is asked for than a pool's lines hold.
local function takes_of(r, lines)
    local takes = {}
    if #lines == 0 then
        for i, line in ipairs(r.lines) do takes[i] = line[3] end
        return takes
    end
    local wanted = {}
    for _, need in ipairs(needs_of(lines)) do wanted[need[3] .. NUL .. need[4]] = need[2] end
    for i, line in ipairs(r.lines) do
        local field = line[1] .. NUL .. line[2]
        takes[i] = math.min(line[3], wanted[field] or 0)
        if wanted[field] then wanted[field] = wanted[field] - takes[i] end
    end
    for _, left in pairs(wanted) do
        if left > 0 then return nil end
    end
    return takes
end

-- A commit that lists all that the hold has means the same as one without lines, so it has that one's fingerprint.
meanings.commit = function(c)
    local r = #c > 9 and record_of(c[5])
    if not r or r.state == REMEMBERED then return end
    local takes = takes_of(r, lines_of(c, 10))
    for i, line in ipairs(r.lines) do
        if not takes or takes[i] ~= line[3] then return end
    end
    c[3] = c[9]
end

local function close_with(r, takes)
    local lines = {}
    for i, line in ipairs(r.lines) do
        lines[i] = {line[1], line[2], line[3], takes[i], line[3] - takes[i], 0, line[7] or false}
    end
    r.lines = lines
end

local function commit_held(r, takes, c)
    unschedule(r)
    local changes = {}
    for i, line in ipairs(r.lines) do
        if line[3] > 0 then
            local back = line[3] - takes[i]
            change(changes, pool_of(line[1], line[2]), 0, back, -line[3], takes[i], 0)
            add_share(line[1], r.buyer, -back)
        end
    end
    record_hold('commit', r, changes, c, c[7], '', false)
    close_with(r, takes)
    end_hold(r, COMMITTED, c[7], '', 0)
    return hold_reply(r, 0)
end

-- A late payment: the expired hold takes its units again and commits them in one step, if they are still there.
local function commit_expired(r, takes, c)
    local again = {}
    for i, line in ipairs(r.lines) do again[i] = {line[1], line[2], takes[i]} end
    local needs = needs_of(again)
    for _, need in ipairs(needs) do
        if sku_of(need[3]).elsewhere then return refuse_final(r) end -- its stock is not here any more
    end
    local refusal = limit_refusal(r.buyer, units_by_sku(needs)) or stock_refusal(needs)
    if refusal then return refusal end
    local changes = {}
    for i, line in ipairs(r.lines) do
        if takes[i] > 0 then
            local p = pool_of(line[1], line[2])
            change(changes, p, 0, -takes[i], takes[i], 0, 0)
            change(changes, p, 0, 0, -takes[i], takes[i], 0)
            add_share(line[1], r.buyer, takes[i])
        end
    end
    record_hold('commit', r, changes, c, c[7], '', {reacquired = true})
    close_with(r, takes)
    end_hold(r, COMMITTED, c[7], '', 1)
    return hold_reply(r, 0)
end

local function same_commit(r, takes, reference)
    if r.last[3] ~= reference then return false end
    for i, line in ipairs(r.lines) do
        if line[4] ~= takes[i] then return false end
    end
    return true
end

verbs.commit = function(c)
    local r = hold_of(c[5], c[6])
    if not r then return refuse('unknown-hold', {}) end
    if r.state == RELEASED or (r.state == EXPIRED and not c[8]) then return refuse_final(r) end
    local takes = takes_of(r, lines_of(c, 10))
    if r.state == COMMITTED then
        if takes and same_commit(r, takes, c[7]) then return hold_reply(r, 1) end
        return refuse_final(r)
    end
    if not takes then return refuse_field('lines', 'more than the hold has') end
    return r.state == HELD and commit_held(r, takes, c) or commit_expired(r, takes, c)
end
