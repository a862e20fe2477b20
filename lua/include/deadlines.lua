-- deadlines: which holds of a pool end when.      READS due, wake      WRITES due, wake
-- due: members pool number, deadline, digest of a hold or several, all scores 0, so that they sort as bytes: a pool's
-- overdue holds are one range, found behind any number of others. Holds that were made together are named together; one
-- of them that ends early, or lives on, stays named until the deadline, and then its record says that it is not meant.
-- wake: pool number → its earliest deadline.

local HEAD_BYTES, DIGEST_BYTES, NAMED_MAX = 10, 14, 256

-- due_add: {score, member, …}. A member that is both added and dropped is dropped, unless it was added once more.
local due_add, due_drop, rewake = {}, {}, {}
local seen_to = {} -- member → how many of the holds that it names this batch has seen to

-- What the members of all holds of this pool with this deadline begin with.
local function due_head(p, expires_ms)
    return bytes('>I4I6', p.number, expires_ms)
end

local function wake_by(p, expires_ms)
    if not p.wake or expires_ms < p.wake then
        p.wake = expires_ms
        touch_pool(p)
    end
end

local function schedule_all(head, digests, from, to)
    for i = from, to, NAMED_MAX do
        local n = #due_add
        due_add[n + 1], due_add[n + 2] = '0', head .. table.concat(digests, '', i, math.min(i + NAMED_MAX - 1, to))
    end
end

-- The pools that a hold's lines have units of, each once.
local function each_pool(lines, visit)
    local seen = {}
    for i = 1, #lines do
        local p = pool_of(lines[i][1], lines[i][2])
        if p and lines[i][3] > 0 and not seen[p] then
            seen[p] = true
            visit(p)
        end
    end
end

local function schedule(r)
    each_pool(r.lines, function(p)
        local member = due_head(p, r.expires_ms) .. r.digest
        due_add[#due_add + 1], due_add[#due_add + 2] = '0', member
        due_drop[member] = nil
        wake_by(p, r.expires_ms)
    end)
end

local function unschedule(r)
    each_pool(r.lines, function(p) due_drop[due_head(p, r.expires_ms) .. r.digest] = true end)
end

-- What is left of the members that were seen to.
local function shorten_members()
    for member, seen in pairs(seen_to) do
        due_drop[member] = true
        local at = HEAD_BYTES + seen * DIGEST_BYTES
        if at < #member then
            due_add[#due_add + 1], due_add[#due_add + 2] = '0', string.sub(member, 1, HEAD_BYTES) .. string.sub(member, at + 1)
        end
    end
end

local function flush_deadlines()
    shorten_members()
    write_all('ZADD', DUE, due_add)
    local dropped = {}
    for member in pairs(due_drop) do dropped[#dropped + 1] = member end
    write_all('ZREM', DUE, dropped)
    for i = 1, #changed_pools do
        local p = changed_pools[i]
        if p.wake then redis.call('ZADD', WAKE, 'LT', string.format('%d', p.wake), string.format('%d', p.number)) end
    end
    for i = 1, #rewake do
        local number = rewake[i]
        local first = redis.call('ZRANGEBYLEX', DUE, '[' .. bytes('>I4', number),
            '(' .. bytes('>I4', number + 1), 'LIMIT', 0, 1)[1]
        if first then
            redis.call('ZADD', WAKE, string.format('%d', (from_bytes('>I6', first, 5))), string.format('%d', number))
        else
            redis.call('ZREM', WAKE, string.format('%d', number))
        end
    end
end

local function next_deadline()
    local first = redis.call('ZRANGE', WAKE, 0, 0, 'WITHSCORES')
    return first[2] and tonumber(first[2]) or 0
end
