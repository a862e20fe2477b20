-- endings: how holds end.
-- READS holds, stock, buyers      WRITES nothing (the flushes of deadlines, records, stock and buyers do)

local lines_left = 1000 -- lines of stored holds that one batch may expire or work on, so that no script runs long

-- The entry of a hold's verb, with what all of them share.
local function record_hold(kind, r, changes, c, reference, reason, details)
    record(kind, r.digest, r.seq, c and c[4] or '', c and c[3] or '', r.buyer, r.expires_ms, reference, reason,
        shortfall(changes), changes, details, '')
end

local function end_hold(r, state, reference, reason, reacquired)
    r.state = state
    r.last = {epoch, now, reference, reason, seq, reacquired}
    touch_record(r)
    queue(ended_queue, r.digest, RETENTION_MS)
end

-- Gives the units of every line back to its pool; returns the changes.
local function give_back(r)
    local changes = {}
    for _, line in ipairs(r.lines) do
        if line[3] > 0 then
            change(changes, pool_of(line[1], line[2]), 0, line[3], -line[3], 0, 0)
            add_share(line[1], r.buyer, -line[3])
        end
    end
    return changes
end

local function expire(r)
    unschedule(r)
    lines_left = lines_left - #r.lines
    record_hold('expire', r, give_back(r), nil, '', '', false)
    end_hold(r, EXPIRED, '', '', 0)
end

-- A hold as it is now, nil where there is none of this name: an overdue one is expired before anything looks at it.
-- made_seq 0: whichever this digest stands for. Only a cart's parts are named so, whose digests are made for them alone.
local function hold_of(digest, made_seq)
    local r = record_of(digest)
    if not r or r.state == REMEMBERED or (r.seq ~= made_seq and made_seq ~= 0) then return nil end
    if r.state == HELD and r.expires_ms <= now then expire(r) end
    return r
end

local FINAL_REASON = {[COMMITTED] = 'already-committed', [RELEASED] = 'hold-released', [EXPIRED] = 'hold-expired'}

local function refuse_final(r)
    return refuse(FINAL_REASON[r.state], {})
end

