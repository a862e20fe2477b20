-- apply: one atomic batch of commands for one partition.
--
-- KEYS     meta stock holds due wake ended refused buyers journal      (all of one hash tag; see engine/keys.py)
-- ARGV[1]  nonce, echoed, so that a reply can never be taken for another batch's
-- ARGV[2]  msgpack array of commands: {verb, key digest|'', fingerprint, key|'', …}; the rest is the verb's, see its file
-- RETURNS  msgpack {nonce, now_ms, epoch, seq, chain, {sku: durability that its policy asks for, …}|false, {reply, …}},
--          one reply a command, in order; or an error reply
--          UNINSTALLED (the partition holds no state: nothing was decided)
-- COST     O(commands + lines) hash operations, O(log live holds) a line for the deadline index; two HMGETs, then
--          one variadic write a key and one XADD
--
-- Load → decide → flush → record → reply. A script is not rolled back on an error, so every decision comes before the
-- first write, and nothing after it can fail: only whole-key writes with values made here.
--
-- Interpreted Lua is where the time goes (a hash over every byte of every new string, a table a value), so what every
-- hold makes (entry, record, reply) is put together from bytes that came with the command and one tail of decided ones.

local META, STOCK, HOLDS, DUE, WAKE = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local ENDED, REFUSED, BUYERS, JOURNAL = KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local pack, unpack_msgpack, bytes, from_bytes = cmsgpack.pack, cmsgpack.unpack, struct.pack, struct.unpack

--@include include/clock.lua
--@include include/slices.lua
--@include include/journal.lua
--@include include/stock.lua
--@include include/changes.lua
--@include include/buyers.lua
--@include include/records.lua
--@include include/idempotency.lua
--@include include/deadlines.lua
--@include include/endings.lua
--@include include/expiries.lua
--@include include/overdue.lua
--@include include/cart.lua
--@include include/loading.lua

local commands = unpack_msgpack(ARGV[2])
load_batch(commands)

-- Verbs that nobody asks for are not made: most batches are of one verb, and a closure costs as much as a command.
local verbs, meanings = {}, {} -- meanings: of verbs that can say the same in two ways
if asked.hold or asked.hold_partially or asked.hold_part then
--@include include/rules.lua
--@include verbs/hold.lua
--@include verbs/hold_partially.lua
    if asked.hold_part then
--@include verbs/hold_part.lua
    end
end
if asked.commit then
--@include verbs/commit.lua
end
if asked.release or asked.extend or asked.amend then
--@include verbs/release.lua
--@include verbs/extend.lua
--@include verbs/amend.lua
end
if asked.move then
--@include include/movements.lua
--@include verbs/move.lua
end
if asked.policy or asked.count or asked.read_hold or asked.read_stock then
--@include include/policies.lua
--@include verbs/policy.lua
--@include verbs/count.lua
--@include verbs/read.lua
end
if asked.expire then
--@include verbs/expire.lua
end

-- Decide: in Lua tables only.
local replies, to_pack = {}, {} -- the first reply is the head of the script's own
for i = 1, #commands do
    local c = commands[i]
    local verb, keyed, reply, packed, passing = c[1], c[2] ~= '', postponed[i], nil, nil
    if keyed and not reply then
        if meanings[verb] then meanings[verb](c) end
        if records[c[2]] then reply = recall(c) end
    end
    if not reply then
        -- `packed`: bytes already, and its own record is its key's memory; `passing`: no answer to stick to the key yet
        reply, packed, passing = verbs[verb](c)
        if keyed and not packed and not passing then remember(c, reply) end
    end
    replies[i + 1] = reply
    if not packed then to_pack[#to_pack + 1] = i + 1 end
end

-- Flush and record.
record_expiries()
local head = record_journal()
flush_stock()
flush_records(head)
flush_deadlines()
flush_buyers()
-- The clock is written by every batch, also by one of replays only: so each answer has a write of its own connection
-- behind it, and waiting for that write makes a repeated answer as durable as the first.
redis.call('HSET', META, 'seq', string.format('%d', seq), 'clock', string.format('%d', now), 'chain', head,
    'pools', string.format('%d', pool_count))

for _, i in ipairs(to_pack) do
    local reply = replies[i]
    if reply[1] == ENTRY and not reply[7] then reply[7] = head end
    if reply[1] == SWEPT then reply[6] = next_deadline() end
    replies[i] = pack(reply)
end
replies[1] = '\151' .. pack(ARGV[1], now, epoch, seq, head, next(raised) and raised or false) .. array_header(#commands)
return table.concat(replies)
