-- records: one a key digest: a hold (which is also the memory of the key that made it), or a remembered answer.
-- READS holds      WRITES holds, ended, refused
-- A hold: pack(state, fingerprint, seq, epoch, created_ms, ttl_ms, expires_ms, buyer, metadata, lines, last, original):
-- lines {{sku, pool, quantity, committed, released, given_back, requested}, …}, cut after quantity while untouched;
-- last false or {epoch, seq, ended_ms, reference, reason, reacquired} of the entry that last changed it;
-- original false or the lines that it was made with, when they have been amended since.
-- An answer: pack(REMEMBERED, fingerprint, digest of the hold that it is about or '', packed reply).

local HELD, COMMITTED, RELEASED, EXPIRED, REMEMBERED = 0, 1, 2, 3, 8

local records, changed_records, forgotten = {}, {}, {}
local ended_queue, refused_queue = {}, {}

local function decode_record(digest, raw)
    local state, fingerprint, a, b, created_ms, ttl_ms, expires_ms, buyer, metadata, lines, last, original =
        cmsgpack.unpack(raw)
    if state == REMEMBERED then
        return {digest = digest, state = state, fingerprint = fingerprint, hold = a, packed = b}
    end
    return {
        digest = digest, state = state, fingerprint = fingerprint, seq = a, epoch = b, created_ms = created_ms,
        ttl_ms = ttl_ms, expires_ms = expires_ms, buyer = buyer, metadata = metadata, lines = lines, last = last,
        original = original}
end

-- Also collects into `fields` the stock that the loaded holds will move.
local function load_records(digests, fields)
    local values = read_all(HOLDS, digests)
    for i = 1, #digests do
        local digest = digests[i]
        if values[i] and not records[digest] then
            local r = decode_record(digest, values[i])
            records[digest] = r
            if fields and r.state ~= REMEMBERED then
                for j = 1, #r.lines do stock_fields(fields, r.lines[j][1], r.lines[j][2]) end
            end
        elseif records[digest] == nil then
            records[digest] = false
        end
    end
end

local function record_of(digest)
    if records[digest] == nil then load_records({digest}) end
    return records[digest]
end

local function touch_record(r)
    if not r.changed then
        r.changed = true
        changed_records[#changed_records + 1] = r
    end
end

local function hold_reply(r, replayed)
    local last = r.last or {r.epoch, r.seq, 0, '', '', false}
    return {HOLD, replayed, r.digest, r.seq, r.state, r.created_ms, r.expires_ms, last[3], r.buyer, last[4], last[5],
        last[6], r.metadata, r.lines, last[1], last[2]}
end

-- The answer that made the hold, whatever has become of it since.
local function original_reply(r)
    local lines = {}
    for i, line in ipairs(r.original or r.lines) do
        lines[i] = line[7] and {line[1], line[2], line[3], 0, 0, 0, line[7]} or {line[1], line[2], line[3]}
    end
    return {HOLD, 1, r.digest, r.seq, HELD, r.created_ms, r.created_ms + r.ttl_ms, 0, r.buyer, '', '', false, r.metadata,
        lines, r.epoch, r.seq}
end

-- What the key's memory says to this command, or nil where it has none.
local function recall(c)
    local r = record_of(c[2])
    if not r then return nil end
    if r.fingerprint ~= c[3] then return refuse('idempotency-key-reused', {}) end
    if r.state ~= REMEMBERED then return original_reply(r) end
    local reply = {unpack(r.reply or cmsgpack.unpack(r.packed))}
    reply[2] = 1
    return reply
end

local function queue(list, digest, retention_ms)
    list[#list + 1] = digest .. struct.pack('>I6', now + retention_ms)
end

-- Keeps the answer for the key. A hold's own record is its key's memory already.
local function remember(c, reply)
    local kind = reply[1]
    if kind == HELD_NEW or kind == AGAIN or (kind == REFUSAL and TRANSIENT[reply[3]]) then return end
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

local function flush_records(head)
    local values = {}
    for i = 1, #changed_records do
        local r = changed_records[i]
        values[#values + 1] = r.digest
        if r.state == REMEMBERED then
            -- A remembered movement answers with the chain of its batch, known only now.
            if r.reply[1] == ENTRY then r.reply[7] = head end
            values[#values + 1] = cmsgpack.pack(REMEMBERED, r.fingerprint, r.hold, cmsgpack.pack(r.reply))
        else
            values[#values + 1] = cmsgpack.pack(r.state, r.fingerprint, r.seq, r.epoch, r.created_ms, r.ttl_ms,
                r.expires_ms, r.buyer, r.metadata, r.lines, r.last, r.original)
        end
    end
    write_all('HSET', HOLDS, values)
    write_all('HDEL', HOLDS, forgotten)
    write_all('RPUSH', ENDED, ended_queue)
    write_all('RPUSH', REFUSED, refused_queue)
end
