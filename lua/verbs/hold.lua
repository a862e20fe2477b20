-- hold: {verb, digest, fingerprint, key, buyer|'', ttl_ms|0, partial, {{sku, pool, quantity}, …}, metadata|''}
-- READS stock holds due buyers      WRITES stock holds due wake buyers journal
-- REPLIES {HELD_NEW, seq, created_ms, expires_ms, granted|false}; granted: {quantity, …}, one a line, where partial

local function rules_of(c)
    local ttl_ms, ttl_max_ms, limited = math.huge, math.huge, false
    for i = 1, #c[8] do
        local s = sku_of(c[8][i][1])
        if not s then return refuse('unknown-sku', {sku = c[8][i][1]}) end
        local refusal = window_refusal(s)
        if refusal then return refusal end
        local max_ms = s.ttl_max_ms > 0 and s.ttl_max_ms or DEFAULT_TTL_MAX_MS
        ttl_ms = math.min(ttl_ms, s.ttl_ms > 0 and s.ttl_ms or DEFAULT_TTL_MS)
        ttl_max_ms = math.min(ttl_max_ms, max_ms)
        limited = limited or s.max_per_buyer > 0
    end
    if c[6] > ttl_max_ms then
        return refuse_field('ttl_seconds', string.format('at most %d, the longest that the policy allows', ttl_max_ms / 1000))
    end
    if limited and c[5] == '' then
        return refuse_field('buyer', 'required, because a line\'s SKU has a limit per buyer')
    end
    return nil, c[6] > 0 and c[6] or math.min(ttl_ms, ttl_max_ms), limited
end

-- Each line gets what the ones before it have left; nil and the refusal where not one unit is left in all.
local function grant_partially(lines, needs)
    for i = 1, #needs do
        if needs[i][1] and not take_back(needs[i][1], needs[i][2]) then return nil, {AGAIN} end
    end
    local left, granted, total = {}, {}, 0
    for i = 1, #lines do
        local p = pool_of(lines[i][1], lines[i][2])
        local most = p and math.max(left[p] or sellable(p), 0) or 0
        granted[i] = math.min(lines[i][3], most)
        if p then left[p] = most - granted[i] end
        total = total + granted[i]
    end
    if total == 0 then return nil, stock_refusal(needs) end
    return granted
end

verbs.hold = function(c)
    local lines, buyer = c[8], c[5]
    local refusal, ttl_ms, limited = rules_of(c)
    if refusal then return refusal end
    local needs = needs_of(lines)
    local granted, kept = false, {}
    if c[7] then
        granted, refusal = grant_partially(lines, needs)
        if refusal then return refusal end
        for i = 1, #lines do kept[i] = {lines[i][1], lines[i][2], granted[i], 0, 0, 0, lines[i][3]} end
        if limited then refusal = limit_refusal(buyer, units_by_sku(needs_of(kept))) end
    else
        kept = lines
        refusal = limited and limit_refusal(buyer, units_by_sku(needs)) or stock_refusal(needs)
    end
    if refusal then return refusal end

    local r = {
        digest = c[2], state = HELD, fingerprint = c[3], seq = seq + 1, epoch = epoch, created_ms = now, ttl_ms = ttl_ms,
        expires_ms = now + ttl_ms, buyer = buyer, metadata = c[9], lines = kept, last = false, original = false}
    local changes = {}
    for i = 1, #kept do
        local quantity = kept[i][3]
        if quantity > 0 then
            changes[#changes + 1] = change(pool_of(kept[i][1], kept[i][2]), 0, -quantity, quantity, 0, 0)
            add_share(kept[i][1], buyer, quantity)
        end
    end
    local details = (granted or c[9] ~= '') and {}
    if c[9] ~= '' then details.metadata = c[9] end
    if granted then
        details.lines = {}
        for i = 1, #lines do details.lines[i] = {lines[i][1], lines[i][2], granted[i], lines[i][3]} end
    end
    record_hold('hold', r, changes, c, '', '', details)
    records[c[2]] = r
    touch_record(r)
    schedule(r)
    return {HELD_NEW, r.seq, now, r.expires_ms, granted}
end
