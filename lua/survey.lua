-- survey: what the store has of some keys at one instant, for the audit. One page a call, so that none runs long.
--
-- KEYS     meta stock holds due wake ended refused buyers journal
-- ARGV     question, then of each question:
--   records  how many digests, how many members, digest, …, member of due of a hold alone, …, pool number, …
--            RETURNS {epoch, seq, {record|false, …}, {1 where due names the member's hold or else 0, …}, {score in wake|
--            false, …}}
--   queue    'ended' or 'refused', from, to (places in the list, as LRANGE has them)
--            RETURNS {epoch, seq, digests in the slice, digest without a record, …}
--   live     cursor of HSCAN      RETURNS {epoch, seq, next cursor, digest, seq of a live hold, …}
--   shares   sku NUL buyer, …      RETURNS {epoch, seq, {units|false, …}}
-- READS    meta holds due wake ended refused buyers      WRITES nothing
-- COST     O(what is asked for): 100 records of live holds 0.3 to 0.5 ms
--
-- Records are told as they stand: unpacking them here took the store three times as long. Whatever stands
-- there may be garbage, and nothing here looks into it further than it must.

local META, HOLDS, DUE, WAKE = KEYS[1], KEYS[3], KEYS[4], KEYS[5]
local ENDED, REFUSED, BUYERS = KEYS[6], KEYS[7], KEYS[8]
local HEAD_BYTES, DIGEST_BYTES = 10, 14 -- of a member of due
local MEMBERS_MAX = 2000 -- with one deadline in one pool: holds that were made together are named together
local LIVE_HEAD = '\0' -- what the record of a live hold begins with
local SEQ_AT = 17 -- where its seq stands

local place = redis.call('HMGET', META, 'epoch', 'seq')
if not place[1] or not place[2] then
    return redis.error_reply('UNINSTALLED this partition holds no state')
end
local answer = {place[1], place[2]}

--@include include/slices.lua

local named_by = {} -- what members of due begin with → the digests that such members name

local function is_named(member)
    local head, digest = string.sub(member, 1, HEAD_BYTES), string.sub(member, HEAD_BYTES + 1)
    local named = named_by[head]
    if not named then
        named = {}
        local members = redis.call('ZRANGEBYLEX', DUE, '[' .. head, '(' .. head .. '\255', 'LIMIT', 0, MEMBERS_MAX)
        for i = 1, #members do
            for at = HEAD_BYTES + 1, #members[i], DIGEST_BYTES do
                named[string.sub(members[i], at, at + DIGEST_BYTES - 1)] = true
            end
        end
        named_by[head] = named
    end
    return named[digest]
end

local questions = {}

function questions.records()
    local digests_to = 3 + tonumber(ARGV[2])
    local members_to = digests_to + tonumber(ARGV[3])
    answer[3], answer[4], answer[5] = redis.call('HMGET', HOLDS, unpack(ARGV, 4, digests_to)), {}, {}
    if members_to > digests_to then
        -- A hold that is named by itself is found by its member; only where that fails, a pool's members are searched.
        local named = redis.call('ZMSCORE', DUE, unpack(ARGV, digests_to + 1, members_to))
        for i = 1, #named do named[i] = (named[i] or is_named(ARGV[digests_to + i])) and 1 or 0 end
        answer[4] = named
    end
    if #ARGV > members_to then answer[5] = redis.call('ZMSCORE', WAKE, unpack(ARGV, members_to + 1)) end
end

function questions.queue()
    local items = redis.call('LRANGE', ARGV[2] == 'refused' and REFUSED or ENDED, ARGV[3], ARGV[4])
    local digests = {}
    for i = 1, #items do digests[i] = string.sub(items[i], 1, DIGEST_BYTES) end
    local values = read_all(HOLDS, digests)
    answer[3] = #items
    for i = 1, #digests do
        if not values[i] then answer[#answer + 1] = digests[i] end
    end
end

function questions.live()
    local found = redis.call('HSCAN', HOLDS, ARGV[2], 'COUNT', 250)
    answer[3] = found[1]
    for i = 1, #found[2], 2 do
        local record = found[2][i + 1]
        if string.sub(record, 1, 1) == LIVE_HEAD then
            answer[#answer + 1] = found[2][i]
            answer[#answer + 1] = #record > SEQ_AT + 6 and string.format('%d', (struct.unpack('>I6', record, SEQ_AT))) or '0'
        end
    end
end

function questions.shares()
    answer[3] = redis.call('HMGET', BUYERS, unpack(ARGV, 2))
end

questions[ARGV[1]]()
return answer
