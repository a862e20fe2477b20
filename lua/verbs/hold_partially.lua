-- hold_partially: {verb, digest, fingerprint, key, buyer|'', ttl_ms|0, metadata|'', sku, pool, quantity, …}
-- Each line gets what is left of it, at least one unit in all. Its entry is a `hold` with details {lines = {{sku, pool,
-- granted, requested}, …}[, metadata][, ttl_ms]}; ttl_ms is the one that was asked for, where one was.
-- READS stock holds due buyers      WRITES stock holds due wake ended buyers journal
-- REPLIES {HELD_PARTLY, seq, expires_ms, {granted, …}}

-- Each line gets what the ones before it have left: nil and the lines with what they get, or the refusal where not one
-- unit is left in all.
local function grant_partially(lines)
    local needs = needs_of(lines)
    for _, need in ipairs(needs) do
        if need[1] and not take_back(need[1], need[2]) then return {AGAIN} end
    end
    local left, granted, total = {}, {}, 0
    for i, line in ipairs(lines) do
        local p = pool_of(line[1], line[2])
        local most = p and math.max(left[p] or sellable(p), 0) or 0
        local quantity = math.min(line[3], most)
        if p then left[p] = most - quantity end
        granted[i] = {line[1], line[2], quantity, 0, 0, 0, line[3]}
        total = total + quantity
    end
    if total == 0 then return stock_refusal(needs) end
    return nil, granted
end

verbs.hold_partially = function(c)
    local refusal, ttl_ms, limited, lines
    refusal, ttl_ms, limited = rules_of(c, 8, c[6])
    refusal = refusal or limited and c[5] == '' and limit_refusal_of_hold('')
    if refusal then return refusal end
    refusal, lines = grant_partially(lines_of(c, 8))
    if refusal then return refusal end
    refusal = limited and limit_refusal_of_hold(c[5], lines)
    if refusal then return refusal end
    local r = {
        digest = c[2], state = HELD, fingerprint = c[3], buyer = c[5], metadata = c[7], asked_ttl_ms = c[6], lines = lines,
        epoch = epoch, created_ms = now, ttl_ms = ttl_ms, last = false, original = false, seq = seq + 1,
        expires_ms = now + ttl_ms}
    local changes, granted, details = {}, {}, {lines = {}}
    for i, line in ipairs(lines) do
        if line[3] > 0 then
            change(changes, pool_of(line[1], line[2]), 0, -line[3], line[3], 0, 0)
            add_share(line[1], c[5], line[3])
        end
        granted[i] = line[3]
        details.lines[i] = {line[1], line[2], line[3], line[7]}
    end
    if c[7] ~= '' then details.metadata = c[7] end
    if c[6] > 0 then details.ttl_ms = c[6] end
    record_hold('hold', r, changes, c, '', '', details)
    records[c[2]] = r
    touch_record(r)
    schedule(r)
    return pack({HELD_PARTLY, r.seq, r.expires_ms, granted}), true
end
