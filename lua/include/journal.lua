-- journal: what this batch changed, as ledger entries.      READS nothing      WRITES journal (one XADD a batch)
-- An entry: {kind, hold digest, hold seq, key, fingerprint, buyer, expires_ms, reference, reason, shortfall, changes,
-- details|false, movement's hold id}; a change: {sku, pool, outside, available, held, committed, damaged, in_transit}.

local HELD_NEW, HOLD, ENTRY, REFUSAL, POLICY, STOCK_READ, SWEPT, AGAIN = 0, 1, 2, 3, 4, 5, 6, 9 -- kinds of reply

local entries = {}
local first_seq = seq + 1

local function record(kind, entry)
    seq = seq + 1
    entry[1] = kind
    entries[#entries + 1] = entry
    return entry
end

local function record_journal()
    if #entries == 0 then return chain end
    local payload = cmsgpack.pack(entries)
    local place = string.format('%d:%d:%d:%d:', epoch, first_seq, #entries, now)
    local head = redis.sha1hex(chain .. place .. payload)
    redis.call('XADD', JOURNAL, '*', 'epoch', string.format('%d', epoch), 'seq', string.format('%d', first_seq),
        'count', string.format('%d', #entries), 'at', string.format('%d', now), 'chain', head, 'payload', payload)
    return head
end

-- A refusal that sticks to its key; `transient` ones are forgotten, because a corrected request may be accepted.
local function refuse(reason, detail)
    return {REFUSAL, 0, reason, detail, epoch, seq}
end

local TRANSIENT = {['idempotency-key-reused'] = true, ['invalid-request'] = true}

local function refuse_field(field, message)
    return refuse('invalid-request', {errors = {{field = field, message = message}}})
end
