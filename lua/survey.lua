-- survey: what the store has of some keys at one instant, for the audit. One page a call, so that it runs a few ms.
--
-- KEYS     meta stock holds due wake ended refused buyers journal
-- ARGV     question, then of each question:
--   records  digest, …      RETURNS {epoch, seq, record, …}, one a digest: '': there is none; '!': one that cannot be
--            read; otherwise msgpack {state, seq, expires_ms, buyer, {line, …}, metadata, created_ms, epoch, fault}.
--            fault: what the deadlines lack of a live hold, '' for nothing: 'unnamed' in the index, 'unwoken' by wake
--   queue    'ended' or 'refused', from, to (places in the list, as LRANGE has them)
--            RETURNS {epoch, seq, digests in the slice, digest without a record, …}
--   live     cursor of HSCAN      RETURNS {epoch, seq, next cursor, digest, seq of a live hold, …}
--   shares   sku NUL buyer, …      RETURNS {epoch, seq, units|false, …}
-- READS    meta stock holds due wake ended refused buyers      WRITES nothing
-- COST     O(what is asked for): 125 records of live holds 1 ms where they are of few SKUs, 4 where each is of another
--
-- How records, counters and deadlines are laid out is known by the includes alone, as for every other script. Whatever
-- stands there may be garbage: it is read under pcall, and what cannot be read is told, not raised.

local META, STOCK, HOLDS, DUE, WAKE = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local ENDED, REFUSED, BUYERS, JOURNAL = KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local pack, unpack_msgpack, bytes, from_bytes = cmsgpack.pack, cmsgpack.unpack, struct.pack, struct.unpack
local question = ARGV[1]

local place = redis.call('HMGET', META, 'epoch', 'seq')
if not place[1] or not place[2] then
    return redis.error_reply('UNINSTALLED this partition holds no state')
end
local epoch, seq, chain, pool_count, now = 0, 0, '', 0, 0 -- what the includes know a batch by; nothing is decided here

--@include include/slices.lua
--@include include/journal.lua
--@include include/stock.lua
--@include include/records.lua
--@include include/deadlines.lua

local MEMBERS_MAX = 2000

local named_by = {} -- what members of the index begin with → the digests that such members name

local function is_named(p, expires_ms, digest)
    local head = due_head(p, expires_ms)
    local named = named_by[head]
    if not named then
        named = {}
        local members = redis.call('ZRANGEBYLEX', DUE, '[' .. head, '(' .. due_head(p, expires_ms + 1),
            'LIMIT', 0, MEMBERS_MAX)
        for i = 1, #members do
            for at = #head + 1, #members[i], DIGEST_BYTES do
                named[string.sub(members[i], at, at + DIGEST_BYTES - 1)] = true
            end
        end
        named_by[head] = named
    end
    return named[digest]
end

local wakes = {} -- number of a pool → when the sweeper looks at it, false: never

local function is_woken(p, expires_ms)
    local at = wakes[p.number]
    if at == nil then
        local score = redis.call('ZSCORE', WAKE, string.format('%d', p.number))
        at = score and tonumber(score)
        wakes[p.number] = at
    end
    return at and at <= expires_ms
end

-- What records of one SKU have in common, and so is made once: bytes of lines as stored → {as told, {pool, …}}.
local lines_told = {}

local function told_lines(digest, raw, lines)
    local told = lines_told[lines]
    if not told then
        local r = decode_record(digest, raw)
        told = {pack(r.lines), {}}
        each_pool(r.lines, function(p) table.insert(told[2], p) end)
        lines_told[lines] = told
    end
    return told
end

local function fault_of(pools_of_hold, expires_ms, digest)
    for i = 1, #pools_of_hold do
        if not is_named(pools_of_hold[i], expires_ms, digest) then return 'unnamed' end
    end
    for i = 1, #pools_of_hold do
        if not is_woken(pools_of_hold[i], expires_ms) then return 'unwoken' end
    end
    return ''
end

local RECORD_TOLD = '\153' -- msgpack's head of an array of 9
local ANSWER_TOLD = pack({REMEMBERED, 0, 0, '', {}, '', 0, 0, ''})

local function told(digest, raw)
    if string.byte(raw) == REMEMBERED then
        decode_record(digest, raw)
        return ANSWER_TOLD
    end
    local state, width, created_ms, expires_ms, size, made_seq, buyer_size = from_bytes(RECORD_HEAD, raw)
    local lines_at = BUYER_AT + buyer_size
    local told = told_lines(digest, raw, string.char(width) .. string.sub(raw, lines_at, lines_at + size - 1))
    local metadata, _, _, made_epoch = unpack_msgpack(string.sub(raw, lines_at + size))
    return RECORD_TOLD .. pack(state, made_seq, expires_ms, string.sub(raw, BUYER_AT, lines_at - 1)) .. told[1]
        .. pack(metadata, created_ms, made_epoch, state == HELD and fault_of(told[2], expires_ms, digest) or '')
end

local questions = {}

function questions.records(answer)
    local digests = {unpack(ARGV, 2)}
    local values = read_all(HOLDS, digests)
    for i = 1, #digests do
        if values[i] then
            local read, record = pcall(told, digests[i], values[i])
            answer[#answer + 1] = read and record or '!'
        else
            answer[#answer + 1] = ''
        end
    end
end

function questions.queue(answer)
    local items = redis.call('LRANGE', ARGV[2] == 'refused' and REFUSED or ENDED, ARGV[3], ARGV[4])
    local digests = {}
    for i = 1, #items do digests[i] = string.sub(items[i], 1, DIGEST_BYTES) end
    local values = read_all(HOLDS, digests)
    answer[3] = #items
    for i = 1, #digests do
        if not values[i] then answer[#answer + 1] = digests[i] end
    end
end

function questions.live(answer)
    local found = redis.call('HSCAN', HOLDS, ARGV[2], 'COUNT', 250)
    answer[3] = found[1]
    for i = 1, #found[2], 2 do
        if string.byte(found[2][i + 1]) == HELD then
            local read, r = pcall(decode_record, found[2][i], found[2][i + 1])
            answer[#answer + 1] = found[2][i]
            answer[#answer + 1] = read and string.format('%d', r.seq) or '0'
        end
    end
end

function questions.shares(answer)
    local units = read_all(BUYERS, {unpack(ARGV, 2)})
    for i = 1, #units do answer[#answer + 1] = units[i] end
end

local answer = {place[1], place[2]}
questions[question](answer)
return answer
