-- hold: {verb, '', ttl_ms|0, metadata|'', n, keys, digests, buyers, sku, pool, quantity, …}: n holds, alike but for key and
-- buyer, each of all its lines or none. keys, digests, buyers: the bytes of msgpack arrays, as the journal takes them.
-- READS stock holds due buyers      WRITES stock holds due wake ended buyers journal
-- REPLIES {HELD_NEW, expires_ms, {first, last, seq of the first, …}, {place, other reply, …}}: stretches of new holds with
--         one seq after the other, and what the rest were answered

local LINES, HOLD_ROW = LINES_AT.hold, '\152'

-- What each of these holds takes: {pool, quantity, head of its member in the deadline index}, …; nil where a pool is not.
local function claims_of(c, expires_ms)
    local claims = {}
    for i = LINES, #c, 3 do
        local p = pools[c[i]][c[i + 1]]
        if not p then return nil end
        claims[#claims + 1] = {p, c[i + 2], due_head(p, expires_ms)}
    end
    return claims
end

-- The journal's row of the holds of one stretch: mostly all, whose columns are at hand as bytes.
local function row_of(c, shared, stretch)
    local from, to = stretch.from, stretch.to
    if to - from + 1 == c[5] then return shared .. c[6] .. c[7] .. c[8] end
    local function some(list) return {unpack(list, from, to)} end
    return shared .. pack(some(unpack_msgpack(c[6])), some(c.digests), some(c.buyers))
end

-- Puts the rows of the stretches where they belong; {first, last, seq of the first, …}.
local function record_stretches(c, flat, expires_ms, claims, stretches)
    local places = {}
    if not stretches[1] then return places end
    local shared = HOLD_ROW .. pack('hold', expires_ms, c[3], c[4], flat)
    for i = 1, #stretches do
        local s = stretches[i]
        rows[s.row] = row_of(c, shared, s)
        places[#places + 1], places[#places + 2], places[#places + 3] = s.from, s.to, s.seq
    end
    for i = 1, #claims do
        local claim = claims[i]
        for j = 1, #stretches do schedule_all(claim[3], c.digests, stretches[j].from, stretches[j].to) end
        wake_by(claim[1], expires_ms)
    end
    return places
end

-- The refusal of the `i`th hold for want of stock or of a share for its buyer, or nil.
local function refusal_of(c, i, limited)
    local lines = lines_of(c, LINES)
    return limited and limit_refusal_of_hold(c.buyers[i], lines) or stock_refusal(needs_of(lines))
end

-- What the `i`th hold is answered when it is not a new one: by its key's memory, or by a refusal, which its key keeps.
local function other_reply(c, i, flat, refusal)
    local buyer, digest = c.buyers[i], c.digests[i]
    local named = {'hold', digest, fingerprint_of(buyer, c[4], c[3], flat)}
    local reply = recall(named)
    if not reply then
        reply = refusal
        remember(named, reply)
    end
    return reply
end

verbs.hold = function(c)
    local digests, buyers, flat = c.digests, c.buyers, {unpack(c, LINES)}
    local refusal, ttl_ms, limited = rules_of(c, LINES, c[3])
    local expires_ms, lines = now + (ttl_ms or 0), pack(flat)
    local claims = not refusal and claims_of(c, expires_ms)
    local first = claims and not claims[2] and not limited and claims[1]
    local head = bytes('>BBI6I6H', HELD, 3, now, expires_ms, #lines)
    local tail = lines .. pack(c[4], c[3], '', epoch, ttl_ms or 0, false, false)
    local stretches, others, stretch, short = {}, {}, nil, nil
    local values = #record_values -- counted along: the length of a long table is a search
    for i = 1, c[5] do
        local digest = digests[i]
        local refused = refusal
        if not refused and not records[digest] and not (first and sellable(first[1]) >= first[2]) then
            -- What one of a crowd cannot get the next cannot: they share the refusal.
            if not (first and short) then
                short = refusal_of(c, i, limited)
                values = #record_values -- it may have expired holds
            end
            refused = short
        end
        if refused or records[digest] then
            others[#others + 1], others[#others + 2] = i, other_reply(c, i, flat, refused)
        else
            for k = 1, #claims do
                local claim = claims[k]
                local p, quantity = claim[1], claim[2]
                p.available, p.held = p.available - quantity, p.held + quantity
                if not p.changed then touch_pool(p) end
                if counted_skus then add_share(p.sku, buyers[i], quantity) end
            end
            seq = seq + 1
            if not stretch or stretch.to ~= i - 1 or stretch.next_seq ~= seq then
                stretch = {from = i, seq = seq, row = #rows + 1}
                rows[stretch.row], stretches[#stretches + 1] = '', stretch
            end
            stretch.to, stretch.next_seq = i, seq + 1
            local buyer = buyers[i]
            local packed = head .. bytes('>I6H', seq, #buyer) .. buyer .. tail
            records[digest] = packed
            record_values[values + 1], record_values[values + 2] = digest, packed
            values = values + 2
        end
    end
    return pack({HELD_NEW, expires_ms, record_stretches(c, flat, expires_ms, claims, stretches), others}), true
end
