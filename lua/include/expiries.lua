-- expiries: overdue holds of one whole line end without being unpacked, and share the journal's row.
-- READS stock      WRITES nothing (the flushes of deadlines, records and stock do)

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
