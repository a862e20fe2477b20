-- release: {verb, digest|'', fingerprint, key|'', hold digest, hold seq, reason|''}
-- READS stock holds buyers      WRITES stock holds due ended buyers journal      REPLIES {HOLD, replayed, …}

verbs.release = function(c)
    local r = hold_of(c[5], c[6])
    if not r then return refuse('unknown-hold', {}) end
    if r.state == RELEASED then return hold_reply(r, 1) end
    if r.state ~= HELD then return refuse_final(r) end
    unschedule(r)
    local changes, lines = give_back(r), {}
    for i, line in ipairs(r.lines) do
        lines[i] = {line[1], line[2], line[3], 0, line[3], 0, line[7] or false}
    end
    record_hold('release', r, changes, c, '', c[7], false)
    r.lines = lines
    end_hold(r, RELEASED, '', c[7], 0)
    return hold_reply(r, 0)
end
