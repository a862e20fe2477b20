-- idempotency: what a key's memory answers, and what it keeps.      READS holds      WRITES nothing (records.lua does)
-- The answer decided for a key sticks to it; a hold's own record is the memory of the key that made it.

-- The answer that made the hold, whatever has become of it since.
local function original_reply(r)
    local lines = {}
    for i, line in ipairs(r.original or r.lines) do
        lines[i] = {line[1], line[2], line[3], 0, 0, 0, line[7] or false}
    end
    return {HOLD, 1, r.digest, r.seq, HELD, r.created_ms, r.created_ms + r.ttl_ms, 0, r.buyer, '', '', 0, r.metadata,
        lines, r.epoch, r.seq}
end

-- The fingerprint of a hold of whole lines: 72 bits over what it asks for. Made only where one is compared or refused,
-- because the record of one that was accepted says the same.
local function fingerprint_of(buyer, metadata, asked_ttl_ms, flat)
    return string.sub(redis.sha1hex(pack('hold', metadata, asked_ttl_ms, flat) .. buyer), 1, 18)
end

local function fingerprint_of_record(r)
    if r.fingerprint ~= '' then return r.fingerprint end
    return fingerprint_of(r.buyer, r.metadata, r.asked_ttl_ms, flat_lines(r.original or r.lines, 3))
end

-- What the key's memory says to this command, or nil where it has none.
local function recall(c)
    local r = records[c[2]]
    if not r then return nil end
    r = record_of(c[2])
    if fingerprint_of_record(r) ~= c[3] then return refuse('idempotency-key-reused', {}) end
    if r.state ~= REMEMBERED then return original_reply(r) end
    local reply = {unpack(r.reply)}
    reply[2] = 1
    return reply
end

-- Keeps the answer for the key.
local function remember(c, reply)
    local kind = reply[1]
    if kind == AGAIN or (kind == REFUSAL and TRANSIENT[reply[3]]) then return end
    local r = {digest = c[2], state = REMEMBERED, fingerprint = c[3], hold = '', reply = reply}
    if kind == HOLD then r.hold = reply[3] end
    records[c[2]] = r
    touch_record(r)
    if kind == REFUSAL then
        queue(refused_queue, c[2], REFUSED_RETENTION_MS)
    else
        queue(ended_queue, c[2], RETENTION_MS)
    end
end

