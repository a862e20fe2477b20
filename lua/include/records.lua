-- records: one a key digest: a hold (which is also the memory of the key that made it), or a remembered answer.
-- READS holds      WRITES holds, ended, refused
-- A hold: {state, fingerprint, buyer, metadata, ttl_ms as asked for, {line value, …}, epoch, created_ms, ttl_ms, last,
-- original, width, seq, expires_ms}; a line has `width` values: sku, pool, quantity[, committed, released, given_back,
-- requested|false], 3 for whole lines as they were made.
-- last: false or {epoch, seq, ended_ms, reference, reason, reacquired} of the entry that last changed it;
-- original: false or the lines that it was made with, when they have been amended since.
-- An answer: {REMEMBERED, fingerprint, digest of the hold that it is about or '', reply}.

local HELD, COMMITTED, RELEASED, EXPIRED, REMEMBERED = 0, 1, 2, 3, 8

-- digest → record, packed record, or false where there is none. nil: not asked for yet.
local records, changed_records, forgotten = {}, {}, {}
local record_values, ended_queue, refused_queue = {}, {}, {}

local function decode_record(digest, raw)
    local a = unpack_msgpack(raw)
    if a[1] == REMEMBERED then
        return {digest = digest, state = REMEMBERED, fingerprint = a[2], hold = a[3], reply = a[4]}
    end
    local lines, flat, width = {}, a[6], a[12]
    for at = 1, #flat, width do lines[#lines + 1] = {unpack(flat, at, at + width - 1)} end
    return {
        digest = digest, state = a[1], fingerprint = a[2], buyer = a[3], metadata = a[4], asked_ttl_ms = a[5],
        lines = lines, epoch = a[7], created_ms = a[8], ttl_ms = a[9], last = a[10], original = a[11], seq = a[13],
        expires_ms = a[14]}
end

local function encode_record(r)
    local width, flat = #r.lines[1], {}
    for i = 1, #r.lines do
        for j = 1, width do flat[#flat + 1] = r.lines[i][j] end
    end
    return pack({r.state, r.fingerprint, r.buyer, r.metadata, r.asked_ttl_ms, flat, r.epoch, r.created_ms, r.ttl_ms,
        r.last, r.original, width, r.seq, r.expires_ms})
end

local RECORD_HEAD, made_now = '\158\0\172', {}

-- The part of a new record that is the same for all holds of a batch with one ttl.
local function made_now_for(ttl_ms)
    made_now[ttl_ms] = string.sub(pack({epoch, now, ttl_ms, false, false, 3}), 2)
    return made_now[ttl_ms]
end

local function load_records(digests)
    local values = read_all(HOLDS, digests)
    for i = 1, #digests do
        local digest = digests[i]
        if not records[digest] then records[digest] = values[i] end
    end
end

local function record_of(digest)
    local r = records[digest]
    if r == nil then
        load_records({digest})
        r = records[digest]
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
    local last = r.last or {r.epoch, r.seq, 0, '', '', false}
    return {HOLD, replayed, r.digest, r.seq, r.state, r.created_ms, r.expires_ms, last[3], r.buyer, last[4], last[5],
        last[6], r.metadata, r.lines, last[1], last[2]}
end

local function queue(list, digest, retention_ms)
    list[#list + 1] = bytes('>c0I6', digest, now + retention_ms)
end

local function flush_records(head)
    local values = record_values
    for i = 1, #changed_records do
        local r = changed_records[i]
        values[#values + 1] = r.digest
        if r.state == REMEMBERED then
            -- A remembered movement answers with the chain of its batch, known only now.
            if r.reply[1] == ENTRY and not r.reply[7] then r.reply[7] = head end
            values[#values + 1] = pack({REMEMBERED, r.fingerprint, r.hold, r.reply})
        else
            values[#values + 1] = encode_record(r)
        end
    end
    write_all('HSET', HOLDS, values)
    write_all('HDEL', HOLDS, forgotten)
    write_all('RPUSH', ENDED, ended_queue)
    write_all('RPUSH', REFUSED, refused_queue)
end
