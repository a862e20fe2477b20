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

local function expire(r)
    unschedule(r)
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
local function expire_packed(digest, raw)
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

local MEMBERS = 16 -- a look into the index: at most a thousand holds, mostly what one batch has made

-- Some members of the pool that are overdue, after the one named.
local function overdue_after(number, member)
    local from = member and ('(' .. member) or ('[' .. bytes('>I4', number))
    return redis.call('ZRANGEBYLEX', DUE, from, '(' .. bytes('>I4I6', number, now + 1), 'LIMIT', 0, MEMBERS)
end

-- The holds that these members name and that have not been seen to, at most `most`: {digest, …}, and of each member that
-- was come to {member, how many of them are its own}.
local function named_by(members, most)
    local digests, shares = {}, {}
    for i = 1, #members do
        local member = members[i]
        local seen = seen_to[member] or 0
        local count = math.min((#member - HEAD_BYTES) / DIGEST_BYTES - seen, most - #digests)
        if count > 0 then
            local some = {from_bytes(string.rep('c14', count), member, HEAD_BYTES + seen * DIGEST_BYTES + 1)}
            for k = 1, count do digests[#digests + 1] = some[k] end
        end
        shares[i] = {member, count}
        if #digests == most then break end
    end
    return digests, shares
end

-- Expires the hold if it is still held and overdue; its deadline, or nil. Its name in the index may be a leftover: it has
-- ended before, or lives on.
local function expire_named(digest)
    local raw = records[digest]
    local expires_ms = type(raw) == 'string' and expire_packed(digest, raw)
    if expires_ms then return expires_ms end
    local r = record_of(digest)
    if not (r and r.state == HELD and r.expires_ms <= now) then return nil end
    expire(r)
    return r.expires_ms
end

-- Expires the pool's overdue holds behind its place in the index, at most `most` of them. Returns how many, how many were
-- looked at, and the earliest deadline among them; p.all_seen: nothing is left behind its place.
local function expire_overdue(p, most)
    local members = overdue_after(p.number, p.last_overdue)
    local digests, shares = named_by(members, math.min(most, lines_left))
    load_records(digests)
    local at, expired, earliest_ms = 0, 0, now
    for i = 1, #shares do
        local member, count = shares[i][1], shares[i][2]
        for _ = 1, count do
            if lines_left <= 0 then break end -- a hold of many lines may use up more than its share
            at = at + 1
            local expires_ms = expire_named(digests[at])
            if expires_ms then earliest_ms, expired = math.min(earliest_ms, expires_ms), expired + 1 end
            seen_to[member] = (seen_to[member] or 0) + 1
        end
        if (seen_to[member] or 0) * DIGEST_BYTES + HEAD_BYTES < #member then return expired, at, earliest_ms end
        p.last_overdue = member
    end
    p.all_seen = #shares == #members and #members < MEMBERS
    return expired, at, earliest_ms
end

local ENOUGH = 64 -- holds that are taken back at a time, when one is wanted

-- Takes back what is overdue in the pool until `wanted` are sellable; false when the batch may expire no more and
-- there may be more to take: the answer is not known yet.
local function take_back(p, wanted)
    while sellable(p) < wanted and not p.all_seen do
        if lines_left <= 0 then return false end
        expire_overdue(p, ENOUGH)
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

