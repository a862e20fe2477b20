-- records: one a key digest: a hold (which is also the memory of the key that made it), or a remembered answer.
-- READS holds      WRITES holds, ended, refused
-- A hold, packed: state, width, created_ms, deadline, size of the lines, seq, size of the buyer (RECORD_HEAD); the buyer;
-- the lines: a msgpack array of `width` values each, sku, pool, quantity[, committed, released, given_back, requested|
-- false], 3 for whole lines as they were made; then in msgpack metadata, ttl_ms as asked for, fingerprint|'', epoch, ttl_ms,
-- original, last. What changes when it ends is at the two ends, so that expiring it takes no unpacking.
-- fingerprint: '' for a hold of whole lines, whose record says itself what was asked for.
-- original: false or the lines that it was made with, when they have been amended since.
-- last: false or {epoch, ended_ms, reference, reason, seq, reacquired 0|1} of the entry that last changed it: so a record
-- that nothing has changed yet, and no other, ends in the byte of msgpack's false.
-- An answer, packed: REMEMBERED, then in msgpack fingerprint, digest of the hold that it is about or '', reply.

local HELD, COMMITTED, RELEASED, EXPIRED, REMEMBERED = 0, 1, 2, 3, 8
local RECORD_HEAD, BUYER_AT, REMEMBERED_HEAD = '>BBI6I6HI6H', 25, '\8'

-- digest → record, packed record, or false where there is none. nil: none, as far as it was asked for.
local records, changed_records, forgotten = {}, {}, {}
local record_values, ended_queue, refused_queue = {}, {}, {}

local function decode_record(digest, raw)
    if string.byte(raw) == REMEMBERED then
        local fingerprint, hold, reply = unpack_msgpack(string.sub(raw, 2))
        return {digest = digest, state = REMEMBERED, fingerprint = fingerprint, hold = hold, reply = reply}
    end
    local state, width, created_ms, expires_ms, size, made_seq, buyer_size = from_bytes(RECORD_HEAD, raw)
    local at = BUYER_AT + buyer_size
    local flat, lines = unpack_msgpack(string.sub(raw, at, at + size - 1)), {}
    for i = 1, #flat, width do lines[#lines + 1] = {unpack(flat, i, i + width - 1)} end
    local metadata, asked_ttl_ms, fingerprint, made_epoch, ttl_ms, original, last = unpack_msgpack(string.sub(raw, at + size))
    return {
        digest = digest, state = state, fingerprint = fingerprint, buyer = string.sub(raw, BUYER_AT, at - 1),
        metadata = metadata, asked_ttl_ms = asked_ttl_ms, lines = lines, epoch = made_epoch, created_ms = created_ms,
        ttl_ms = ttl_ms, last = last, original = original, seq = made_seq, expires_ms = expires_ms}
end

-- A record out of what the ledger knows: {digest, state, fingerprint, buyer, metadata, asked ttl_ms, {line, …}, epoch,
-- created_ms, ttl_ms, last|false, original|false, seq, expires_ms}; last: {epoch, seq, ended_ms, reference, reason, reacquired}
local function revived_record(row)
    local last = row[11]
    return {
        digest = row[1], state = row[2], fingerprint = row[3], buyer = row[4], metadata = row[5], asked_ttl_ms = row[6],
        lines = row[7], epoch = row[8], created_ms = row[9], ttl_ms = row[10],
        last = last and {last[1], last[3], last[4], last[5], last[2], last[6] and 1 or 0}, original = row[12],
        seq = row[13], expires_ms = row[14]}
end

local function flat_lines(lines, width)
    local flat = {}
    for i = 1, #lines do
        for j = 1, width do flat[#flat + 1] = lines[i][j] end
    end
    return flat
end

local function encode_record(r)
    local width = #r.lines[1]
    local lines = pack(flat_lines(r.lines, width))
    return bytes(RECORD_HEAD, r.state, width, r.created_ms, r.expires_ms, #lines, r.seq, #r.buyer) .. r.buyer .. lines
        .. pack(r.metadata, r.asked_ttl_ms, r.fingerprint, r.epoch, r.ttl_ms, r.original, r.last)
end

local function load_records(digests)
    local values = read_all(HOLDS, digests)
    for i = 1, #digests do
        if values[i] and not records[digests[i]] then records[digests[i]] = values[i] end
    end
end

local function record_of(digest)
    local r = records[digest]
    if r == nil then
        load_records({digest})
        r = records[digest] or false
        records[digest] = r
    end
    if type(r) == 'string' then
        r = decode_record(digest, r)
        records[digest] = r
    end
    return r
end

local function touch_record(r)
    if not r.changed then
        r.changed = true
        changed_records[#changed_records + 1] = r
    end
end

local function hold_reply(r, replayed)
    local last = r.last or {r.epoch, 0, '', '', r.seq, 0}
    return {HOLD, replayed, r.digest, r.seq, r.state, r.created_ms, r.expires_ms, last[2], r.buyer, last[3], last[4],
        last[6], r.metadata, r.lines, last[1], last[5]}
end

local forget_at = {} -- retention → the instant, as bytes

local function queue(list, digest, retention_ms)
    local tail = forget_at[retention_ms]
    if not tail then
        tail = bytes('>I6', now + retention_ms)
        forget_at[retention_ms] = tail
    end
    list[#list + 1] = digest .. tail
end

local function flush_records(head)
    local values, packed_replies = record_values, {}
    for i = 1, #changed_records do
        local r = changed_records[i]
        values[#values + 1] = r.digest
        if r.state == REMEMBERED then
            -- A remembered movement answers with the chain of its batch, known only now.
            if r.reply[1] == ENTRY and not r.reply[7] then r.reply[7] = head end
            -- Refusals of a crowd share one table.
            packed_replies[r.reply] = packed_replies[r.reply] or pack(r.reply)
            values[#values + 1] = REMEMBERED_HEAD .. pack(r.fingerprint, r.hold) .. packed_replies[r.reply]
        else
            values[#values + 1] = encode_record(r)
        end
    end
    write_all('HSET', HOLDS, values)
    write_all('HDEL', HOLDS, forgotten)
    write_all('RPUSH', ENDED, ended_queue)
    write_all('RPUSH', REFUSED, refused_queue)
end
