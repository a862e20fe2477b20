-- release: {verb, digest|'', fingerprint, key|'', hold digest, hold seq, reason|''}
-- READS stock holds buyers      WRITES stock holds due wake ended buyers journal      REPLIES {HOLD, replayed, …}

verbs.release = function(c)
    local r = hold_of(c[5], c[6])
    if not r then return refuse('unknown-hold', {}) end
    if r.state == RELEASED then return hold_reply(r, 1) end
    if r.state ~= HELD then return refuse_final(r) end
    unschedule(r)
    local changes, lines = {}, {}
    for i, line in ipairs(r.lines) do
        lines[i] = {line[1], line[2], line[3], 0, line[3], 0, line[7] or nil}
        if line[3] > 0 then
            changes[#changes + 1] = change(pool_of(line[1], line[2]), 0, line[3], -line[3], 0, 0)
            add_share(line[1], r.buyer, -line[3])
        end
    end
    record_hold('release', r, changes, c, '', c[7], false)
    r.lines = lines
    end_hold(r, RELEASED, '', c[7], false)
    return hold_reply(r, 0)
end
