-- hold: {verb, digest, fingerprint, n, body, sku, pool, quantity, …}: all lines or none
-- body: the bytes, as the entry takes them, of key, buyer, metadata, ttl_ms|0 and {sku, pool, quantity, …}; the record
-- takes them without the key. n: ttl_ms * 1000 + the bytes of the key: unpacking a member is a fiftieth of a hold.
-- READS stock holds due buyers      WRITES stock holds due wake ended buyers journal
-- REPLIES {HELD_NEW, seq, expires_ms, granted|false}

-- What a SKU's policy says to new holds at this instant, found once a batch.
local function find_rules(s)
    local reason, detail = window(s)
    s.shut = reason and {reason, detail} or false
    s.most_ms = s.ttl_max_ms > 0 and s.ttl_max_ms or DEFAULT_TTL_MAX_MS
    s.usual_ms = math.min(s.ttl_ms > 0 and s.ttl_ms or DEFAULT_TTL_MS, s.most_ms)
end

-- The refusal, or nil, the time that the hold will live, and whether a limit per buyer applies. Lines begin at `at`.
local function rules_of(c, at, asked_ms, buyer)
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
    if limited and (buyer or buyer_of(c)) == '' then
        return refuse_field('buyer', 'required, because a SKU has a limit per buyer')
    end
    return nil, asked_ms > 0 and asked_ms or ttl_ms, limited
end

local function refusal_of_lines(c, limited)
    local needs = needs_of(lines_of(c, 6))
    return limited and limit_refusal(buyer_of(c), units_by_sku(needs)) or stock_refusal(needs)
end

local ENTRY_HEAD_OF_HOLD, FINGERPRINT_HEAD, REPLY_HEAD, NOT_PARTIAL = '\154\164hold\174', '\172', '\148\0', '\194'

verbs.hold = function(c)
    local key_bytes = c[4] % 1000
    local refusal, ttl_ms, limited = rules_of(c, 6, (c[4] - key_bytes) / 1000)
    if refusal then return refusal end
    local p, quantity, width = pools[c[6]][c[7]], c[8], #c
    if width > 8 or limited or not p or p.available - p.safety_stock + p.oversell_allowance < quantity then
        refusal = refusal_of_lines(c, limited)
        if refusal then return refusal end
    end
    local digest, fingerprint, expires_ms = c[2], c[3], now + ttl_ms
    for i = 6, width, 3 do
        p, quantity = pools[c[i]][c[i + 1]], c[i + 2]
        p.available = p.available - quantity
        p.held = p.held + quantity
        if not p.changed then touch_pool(p) end
        schedule_in(p, expires_ms, digest)
        if counted_skus then add_share(c[i], buyer_of(c), quantity) end
    end
    seq = seq + 1
    local tail = bytes('>BI8BI8', UINT, seq, UINT, expires_ms)
    entries[seq - first_seq + 2] = ENTRY_HEAD_OF_HOLD .. digest .. FINGERPRINT_HEAD .. fingerprint .. c[5] .. tail
    local packed = RECORD_HEAD .. fingerprint .. string.sub(c[5], key_bytes + 1) .. (made_now[ttl_ms] or made_now_for(ttl_ms)) .. tail
    records[digest] = packed
    local last = #record_values
    record_values[last + 1], record_values[last + 2] = digest, packed
    return REPLY_HEAD .. tail .. NOT_PARTIAL, true
end
