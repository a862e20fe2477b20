-- apply: one atomic batch of commands for one partition.
--
-- KEYS     meta stock holds due wake ended refused buyers journal      (all of one hash tag; see engine/keys.py)
-- ARGV[1]  nonce, echoed, so that a reply can never be taken for another batch's
-- ARGV[2]  msgpack array of commands: {verb, key digest|'', fingerprint, key|'', …}; the rest is the verb's, see its file
-- RETURNS  msgpack {nonce, now_ms, epoch, seq, chain, {reply, …}}, one reply a command, in order; or an error reply
--          UNINSTALLED (the partition holds no state: nothing was decided)
-- COST     O(commands + lines) hash operations, O(log live holds) a line for the deadline index; two HMGETs, then
--          one variadic write a key and one XADD
--
-- Load → decide → flush → record → reply. A script is not rolled back on an error, so every decision comes before the
-- first write, and nothing after it can fail: only whole-key writes with values made here.

local META, STOCK, HOLDS, DUE, WAKE = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local ENDED, REFUSED, BUYERS, JOURNAL = KEYS[6], KEYS[7], KEYS[8], KEYS[9]

--@include include/clock.lua
--@include include/slices.lua
--@include include/journal.lua
--@include include/stock.lua
--@include include/buyers.lua
--@include include/records.lua
--@include include/deadlines.lua
--@include include/cart.lua

local verbs = {}
--@include verbs/hold.lua
--@include verbs/commit.lua
--@include verbs/release.lua
--@include verbs/extend.lua
--@include verbs/amend.lua
--@include verbs/move.lua
--@include verbs/policy.lua
--@include verbs/read.lua
--@include verbs/expire.lua

local commands = cmsgpack.unpack(ARGV[2])

-- Load: what the commands name, in as few round trips to the dictionary as there are kinds of things.
local LINES_AT = {hold = 8, amend = 7, commit = 8}
local NAMES_A_HOLD = {commit = true, release = true, extend = true, amend = true, read_hold = true}
local digests, fields, buyer_fields = {}, {}, {}
for i = 1, #commands do
    local c = commands[i]
    if c[2] ~= '' then digests[#digests + 1] = c[2] end
    if NAMES_A_HOLD[c[1]] then digests[#digests + 1] = c[5] end
    local lines = LINES_AT[c[1]] and c[LINES_AT[c[1]]]
    if lines then
        for j = 1, #lines do stock_fields(fields, lines[j][1], lines[j][2]) end
    end
end
load_records(digests, fields)
load_stock(fields)
for i = 1, #commands do
    local c = commands[i]
    if c[1] == 'hold' and c[5] ~= '' then
        for j = 1, #c[8] do buyer_field_where_counted(buyer_fields, c[8][j][1], c[5]) end
    end
end
load_buyers(buyer_fields)

-- Decide: in Lua tables only.
local replies = {}
for i = 1, #commands do
    local c = commands[i]
    local reply = c[2] ~= '' and recall(c)
    if not reply then
        reply = verbs[c[1]](c)
        if c[2] ~= '' then remember(c, reply) end
    end
    replies[i] = reply
end

-- Flush and record.
local head = record_journal()
for i = 1, #replies do
    if replies[i][1] == ENTRY and not replies[i][7] then replies[i][7] = head end
end
flush_stock()
flush_records(head)
flush_deadlines()
flush_buyers()
-- The clock is written by every batch, also by one of replays only: so each answer has a write of its own connection
-- behind it, and waiting for that write makes a repeated answer as durable as the first.
redis.call('HSET', META, 'seq', string.format('%d', seq), 'clock', string.format('%d', now), 'chain', head,
    'pools', string.format('%d', pool_count))
local last = replies[#replies]
if last and last[1] == SWEPT then last[6] = next_deadline() end

return cmsgpack.pack({ARGV[1], now, epoch, seq, head, replies})
