-- hold_part: {verb, digest, fingerprint, key, digest of the hold, buyer|'', ttl_ms|0|-1, metadata, refusal|false, sku,
--             pool, quantity, …}: one of the holds of a cart over several partitions, all of its lines or none.
-- ttl_ms -1: it does not expire by itself, because its end is its cart's. refusal: {reason, detail}, the answer where
-- the key is new: so a key is asked about, or used up, without a hold. The hold is stored under a digest of its own,
-- which the key alone makes, and the key remembers the answer beside it.
-- READS stock holds due buyers      WRITES stock holds due wake ended buyers journal      REPLIES {HOLD, replayed, …}

local CART_LINES = LINES_AT.hold_part
local FOR_GOOD_MS = 3155760000000 -- a hundred years: a deadline that nobody sees pass, and 48 bits can hold

verbs.hold_part = function(c)
    local known = record_of(c[5])
    if known then -- a restore brings the hold back, not what its key was answered
        if known.fingerprint ~= c[3] then return refuse('idempotency-key-reused', {}) end
        return original_reply(known)
    end
    if c[9] then return refuse(c[9][1], c[9][2]) end
    local refusal, ttl_ms, limited = rules_of(c, CART_LINES, math.max(c[7], 0))
    if refusal then return refusal end
    local lines = lines_of(c, CART_LINES)
    refusal = limited and limit_refusal_of_hold(c[6], lines) or stock_refusal(needs_of(lines))
    if refusal then return refusal end
    if c[7] < 0 then ttl_ms = FOR_GOOD_MS end
    local r = {
        digest = c[5], state = HELD, fingerprint = c[3], buyer = c[6], metadata = c[8], asked_ttl_ms = math.max(c[7], 0),
        lines = lines, epoch = epoch, created_ms = now, ttl_ms = ttl_ms, last = false, original = false, seq = seq + 1,
        expires_ms = now + ttl_ms}
    local changes, details = {}, {metadata = c[8]}
    for i = 1, #lines do
        local line = lines[i]
        change(changes, pool_of(line[1], line[2]), 0, -line[3], line[3], 0, 0)
        add_share(line[1], c[6], line[3])
    end
    if c[7] > 0 then details.ttl_ms = c[7] end
    record_hold('hold', r, changes, c, '', '', details)
    records[r.digest] = r
    touch_record(r)
    schedule(r)
    return hold_reply(r, 0)
end
