-- overdue: what is past its deadline is found and taken back, sweeper or none.
-- READS due, holds      WRITES nothing (the flush of deadlines does)

local LOOK, LOOK_MAX = 2, 64 -- members at a time: each may name one hold or hundreds

-- At most `most` members of the pool that are overdue, after the one named.
local function overdue_after(number, member, most)
    local from = member and ('(' .. member) or ('[' .. bytes('>I4', number))
    return redis.call('ZRANGEBYLEX', DUE, from, '(' .. bytes('>I4I6', number, now + 1), 'LIMIT', 0, most)
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
    local look = p.look or LOOK
    local members = overdue_after(p.number, p.last_overdue, look)
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
    if #shares == #members then
        p.all_seen = #members < look
        p.look = math.min(4 * look, LOOK_MAX)
    end
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
