-- endings: how holds end, and the taking back of what is overdue.
-- READS due, holds, stock, buyers      WRITES nothing (the flushes of deadlines, records, stock and buyers do)

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

-- `member`: the one of the deadline index that led here, where one did.
local function expire(r, member)
    if member and not r.lines[2] then
        due_drop[member] = true
    else
        unschedule(r)
    end
    lines_left = lines_left - #r.lines
    record_hold('expire', r, give_back(r), nil, '', '', false)
    end_hold(r, EXPIRED, '', '', 0)
end

-- Holds of one whole line, the bytes of their lines → {sku, pool, quantity, its pool}: those that can be expired without
-- being unpacked. false: others.
local whole_lines = {}

local function whole_line(lines)
    local line = unpack_msgpack(lines)
    line = #line == 3 and {line[1], line[2], line[3], pool_of(line[1], line[2])}
    whole_lines[lines] = line
    return line
end

local expiries = {} -- rows under way: {place among the rows, line, digests, seqs, deadlines, buyers}
local EXPIRED_HEAD, EXPIRY_ROW, UNTOUCHED = string.char(EXPIRED), '\150', 194
local expired_last -- what the records of all of them end with, but for their seqs

-- Expires the hold in its packed form, if it is one of a whole line, nothing has changed it yet and its pool is short of
-- nothing; otherwise nil. Returns its deadline.
local function expire_packed(digest, raw, member)
    local state, width, _, expires_ms, size, made_seq, buyer_size = from_bytes(RECORD_HEAD, raw)
    if state ~= HELD or width ~= 3 or expires_ms > now or string.byte(raw, -1) ~= UNTOUCHED then return nil end
    local lines_at = BUYER_AT + buyer_size
    local lines = string.sub(raw, lines_at, lines_at + size - 1)
    local line = whole_lines[lines]
    if line == nil then line = whole_line(lines) end
    if not line or counted_skus then return nil end
    local p, quantity = line[4], line[3]
    if sellable(p) + quantity < 0 or next(short_pools) ~= nil then return nil end
    p.available, p.held = p.available + quantity, p.held - quantity
    touch_pool(p)
    seq = seq + 1
    local row = expiries[#expiries]
    if not row or row.line ~= line or row.next_seq ~= seq then
        row = {at = #rows + 1, line = line, count = 0, digests = {}, seqs = {}, deadlines = {}, buyers = {}}
        rows[row.at], expiries[#expiries + 1] = '', row
    end
    local n = row.count + 1
    row.count, row.next_seq = n, seq + 1
    row.digests[n], row.seqs[n], row.deadlines[n] = digest, made_seq, expires_ms
    row.buyers[n] = string.sub(raw, BUYER_AT, lines_at - 1)
    expired_last = expired_last or '\150' .. pack(epoch, now, '', '') .. '\207'
    local packed = EXPIRED_HEAD .. string.sub(raw, 2, -2) .. expired_last .. bytes('>I8', seq) .. '\0'
    records[digest] = packed
    record_values[#record_values + 1], record_values[#record_values + 2] = digest, packed
    due_drop[member] = true
    queue(ended_queue, digest, RETENTION_MS)
    lines_left = lines_left - 1
    return expires_ms
end

-- Puts the rows of what was expired in packed form where they belong.
local function record_expiries()
    for i = 1, #expiries do
        local row = expiries[i]
        rows[row.at] = EXPIRY_ROW .. pack('expire', {row.line[1], row.line[2], row.line[3]}, row.digests, row.seqs,
            row.deadlines, row.buyers)
    end
end

-- At most `most` members of the pool that are overdue, after the one named.
local function overdue_after(number, member, most)
    local from = member and ('(' .. member) or ('[' .. bytes('>I4', number))
    return redis.call('ZRANGEBYLEX', DUE, from, '(' .. bytes('>I4I6', number, now + 1), 'LIMIT', 0, most)
end

-- Expires these members' holds, as far as they are still held; returns how many, the earliest deadline among them, and
-- whether all were looked at before the batch had done its share.
local function expire_members(members)
    local digests = {}
    for i = 1, #members do digests[i] = string.sub(members[i], 11) end
    load_records(digests)
    local expired, earliest_ms = 0, now
    for i = 1, #members do
        if lines_left <= 0 then return expired, earliest_ms, false end
        local digest = digests[i]
        local raw = records[digest]
        local expires_ms = type(raw) == 'string' and expire_packed(digest, raw, members[i])
        if not expires_ms then
            local r = record_of(digest)
            if r and r.state == HELD and r.expires_ms <= now then
                expires_ms = r.expires_ms
                expire(r, members[i])
            end
        end
        if expires_ms then
            earliest_ms = math.min(earliest_ms, expires_ms)
            expired = expired + 1
        else
            due_drop[members[i]] = true -- its hold has ended or moved on: a leftover that nothing else would clear
        end
    end
    return expired, earliest_ms, true
end

-- Takes back what is overdue in the pool until `wanted` are sellable; false when the batch may expire no more and
-- there may be more to take: the answer is not known yet.
local function take_back(p, wanted)
    while sellable(p) < wanted and not p.taken_back do
        if lines_left <= 0 then return false end
        local members = overdue_after(p.number, p.last_overdue, 64)
        local _, _, all = expire_members(members)
        if not all then return false end
        p.last_overdue = members[#members] or p.last_overdue
        p.taken_back = #members < 64
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

