-- deadlines: which holds of a pool end when.      READS due, wake      WRITES due, wake
-- due: one member a hold and pool, all scores 0, so that members sort as bytes: pool number, deadline, digest. A pool's
-- overdue holds are one range, found behind any number of others. wake: pool number → its earliest deadline.

local due_add, due_drop, wake_at, rewake = {}, {}, {}, {}
local take_back_left = 1000 -- holds that decisions of one batch may expire, so that no script runs long

local function due_member(number, deadline_ms, digest)
    return struct.pack('>I4I6', number, deadline_ms) .. digest
end

local function each_pool(lines, visit)
    local seen = #lines > 1 and {}
    for i = 1, #lines do
        local p = pool_of(lines[i][1], lines[i][2])
        if p and lines[i][3] > 0 and not (seen and seen[p]) then
            if seen then seen[p] = true end
            visit(p)
        end
    end
end

local function schedule(r)
    each_pool(r.lines, function(p)
        due_add[due_member(p.number, r.expires_ms, r.digest)] = true
        local at = wake_at[p.number]
        if not at or r.expires_ms < at then wake_at[p.number] = r.expires_ms end
    end)
end

local function unschedule(r)
    each_pool(r.lines, function(p)
        local member = due_member(p.number, r.expires_ms, r.digest)
        due_add[member] = nil
        due_drop[member] = true
    end)
end

-- The entry of a hold's verb, with what all of them share.
local function record_hold(kind, r, changes, c, reference, reason, details)
    return record(kind, {kind, r.digest, r.seq, c and c[4] or '', c and c[3] or '', r.buyer, r.expires_ms, reference,
        reason, shortfall(changes), changes, details, ''})
end

local function end_hold(r, state, reference, reason, reacquired)
    r.state = state
    r.last = {epoch, seq, now, reference, reason, reacquired}
    touch_record(r)
    queue(ended_queue, r.digest, RETENTION_MS)
end

local function expire(r)
    unschedule(r)
    local changes = {}
    for i, line in ipairs(r.lines) do
        if line[3] > 0 then
            changes[#changes + 1] = change(pool_of(line[1], line[2]), 0, line[3], -line[3], 0, 0)
            add_share(line[1], r.buyer, -line[3])
        end
    end
    record_hold('expire', r, changes, nil, '', '', false)
    end_hold(r, EXPIRED, '', '', false)
end

-- At most `most` members of the pool that are overdue, after the one named.
local function overdue_after(number, member, most)
    local from = member and ('(' .. member) or ('[' .. struct.pack('>I4', number))
    return redis.call('ZRANGEBYLEX', DUE, from, '(' .. struct.pack('>I4I6', number, now + 1), 'LIMIT', 0, most)
end

-- Expires these members' holds, as far as they are still held; returns how many, and the earliest deadline among them.
local function expire_members(members)
    local digests = {}
    for i = 1, #members do digests[i] = string.sub(members[i], 11) end
    load_records(digests)
    local expired, earliest_ms = 0, now
    for i = 1, #members do
        local r = records[digests[i]]
        if r and r.state == HELD and r.expires_ms <= now then
            earliest_ms = math.min(earliest_ms, r.expires_ms)
            expire(r)
            expired = expired + 1
        elseif not due_drop[members[i]] then
            due_drop[members[i]] = true -- its hold has ended or moved on: a leftover that nothing else would clear
        end
    end
    return expired, earliest_ms
end

-- Takes back what is overdue in the pool until `wanted` are sellable; false when the batch may expire no more and
-- there may be more to take: the answer is not known yet.
local function take_back(p, wanted)
    while sellable(p) < wanted and not p.taken_back do
        if take_back_left <= 0 then return false end
        local most = math.min(take_back_left, 64)
        local members = overdue_after(p.number, p.last_overdue, most)
        p.last_overdue = members[#members] or p.last_overdue
        p.taken_back = #members < most
        take_back_left = take_back_left - #members
        expire_members(members)
    end
    return true
end

-- A hold as it is now, nil where there is none of this name: an overdue one is expired before anything looks at it.
local function hold_of(digest, made_seq)
    local r = record_of(digest)
    if not r or r.state == REMEMBERED or r.seq ~= made_seq then return nil end
    if r.state == HELD and r.expires_ms <= now then expire(r) end
    return r
end

local FINAL_REASON = {[COMMITTED] = 'already-committed', [RELEASED] = 'hold-released', [EXPIRED] = 'hold-expired'}

local function refuse_final(r)
    return refuse(FINAL_REASON[r.state], {})
end

local function flush_deadlines()
    local members, scores = {}, {}
    for member in pairs(due_drop) do members[#members + 1] = member end
    write_all('ZREM', DUE, members)
    for member in pairs(due_add) do
        scores[#scores + 1] = 0
        scores[#scores + 1] = member
    end
    write_all('ZADD', DUE, scores)
    for number, at in pairs(wake_at) do
        redis.call('ZADD', WAKE, 'LT', string.format('%d', at), string.format('%d', number))
    end
    for i = 1, #rewake do
        local number = rewake[i]
        local first = redis.call('ZRANGEBYLEX', DUE, '[' .. struct.pack('>I4', number),
            '(' .. struct.pack('>I4', number + 1), 'LIMIT', 0, 1)[1]
        if first then
            redis.call('ZADD', WAKE, string.format('%d', (struct.unpack('>I6', first, 5))), string.format('%d', number))
        else
            redis.call('ZREM', WAKE, string.format('%d', number))
        end
    end
end

local function next_deadline()
    local first = redis.call('ZRANGE', WAKE, 0, 0, 'WITHSCORES')
    return first[2] and tonumber(first[2]) or 0
end
