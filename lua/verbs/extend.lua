-- extend: {verb, digest|'', fingerprint, key|'', hold digest, hold seq, ttl_ms}
-- READS stock holds buyers      WRITES stock holds due wake ended buyers journal
-- REPLIES {HOLD, replayed, …}; unchanged where nothing was gained

verbs.extend = function(c)
    local r = hold_of(c[5], c[6])
    if not r then return refuse('unknown-hold', {}) end
    if r.state ~= HELD then return refuse_final(r) end
    local life_max_ms = math.huge
    for _, line in ipairs(r.lines) do
        local max_ms = sku_of(line[1]).ttl_max_ms
        life_max_ms = math.min(life_max_ms, max_ms > 0 and max_ms or DEFAULT_TTL_MAX_MS)
    end
    local expires_ms = math.max(r.expires_ms, math.min(now + c[7], r.created_ms + life_max_ms))
    if expires_ms == r.expires_ms then return hold_reply(r, 0) end
    unschedule(r)
    r.expires_ms = expires_ms
    schedule(r)
    local changes = {}
    each_pool(r.lines, function(p) change(changes, p, 0, 0, 0, 0, 0) end)
    record_hold('extend', r, changes, c, '', '', false)
    r.last = {epoch, 0, '', '', seq, 0}
    touch_record(r)
    return hold_reply(r, 0)
end
