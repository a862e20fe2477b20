-- journal: what this batch changed, as ledger entries.      READS nothing      WRITES journal (one XADD a batch)
-- The payload is an array of rows. A row of holds of whole lines, as they were asked for: {'hold', expires_ms, asked
-- ttl_ms|0, metadata, {sku, pool, quantity, …}, {key, …}, {digest, …}, {buyer, …}}, one entry a key, each of whose changes
-- follow from the lines: from available to held. A row of expiries of such holds: {'expire', {sku, pool, quantity, …},
-- {digest, …}, {hold seq, …}, {expires_ms, …}, {buyer, …}}, from held to available. Any other row is one entry: {kind,
-- hold digest, hold seq, key, fingerprint, buyer, expires_ms, reference, reason, shortfall, changes, details|false,
-- movement's hold id}, a change: {sku, pool, outside, available, held, committed, damaged, in_transit}.

local HELD_NEW, HOLD, ENTRY, REFUSAL, POLICY, STOCK_READ, SWEPT, HELD_PARTLY, AGAIN = 0, 1, 2, 3, 4, 5, 6, 7, 9 -- kinds of reply

local rows = {''} -- the first becomes the head of the payload
local first_seq = seq + 1

local function array_header(n)
    if n < 16 then return string.char(144 + n) end
    return '\220' .. bytes('>I2', n)
end

-- One entry, as bytes; `changes`: a list of what change() made of them.
local function record(kind, digest, made_seq, key, fingerprint, buyer, expires_ms, reference, reason, missing, changes,
                      details, movement_hold)
    seq = seq + 1
    local entry = pack({kind, digest, made_seq, key, fingerprint, buyer, expires_ms, reference, reason, missing, changes,
        details, movement_hold})
    rows[#rows + 1] = entry
    return entry
end

local function record_journal()
    local count = seq - first_seq + 1
    if count == 0 then return chain end
    rows[1] = array_header(#rows - 1)
    local payload = table.concat(rows)
    local head = redis.sha1hex(string.format('%s:%d:%d:%d:%d:%s', chain, epoch, first_seq, count, now,
        redis.sha1hex(payload)))
    redis.call('XADD', JOURNAL, '*', 'epoch', string.format('%d', epoch), 'seq', string.format('%d', first_seq),
        'count', string.format('%d', count), 'at', string.format('%d', now), 'chain', head, 'payload', payload)
    return head
end

-- A refusal that sticks to its key; `transient` ones are forgotten, because a corrected request may be accepted.
local function refuse(reason, detail)
    return {REFUSAL, 0, reason, detail, epoch, seq}
end

local TRANSIENT = {['idempotency-key-reused'] = true, ['invalid-request'] = true, ['sku-elsewhere'] = true}

local function refuse_field(field, message)
    return refuse('invalid-request', {errors = {{field = field, message = message}}})
end
