-- expire: {verb, '', '', '', expire_max, purge_max}: the sweep. Any number of sweepers may run; each finds what is left.
-- READS wake due holds stock ended refused buyers      WRITES stock holds due wake ended refused buyers journal
-- REPLIES {SWEPT, expired, purged, lateness_max_ms, more, next_deadline_ms|0}
-- The last command of its batch, because it hands its reply the deadline that is left after the flush.

local function sweep_deadlines(most)
    local numbers = redis.call('ZRANGEBYSCORE', WAKE, '-inf', string.format('%d', now), 'LIMIT', 0, 64)
    local expired, earliest_ms, left, complete = 0, now, most, #numbers < 64
    for i = 1, #numbers do
        local place = {number = tonumber(numbers[i])}
        rewake[i] = place.number
        while not place.all_seen and left > 0 and lines_left > 0 do
            local some, seen, first_ms = expire_overdue(place, left)
            expired, left, earliest_ms = expired + some, left - seen, math.min(earliest_ms, first_ms)
        end
        if not place.all_seen then
            complete = false
            break
        end
    end
    return expired, now - earliest_ms, not complete
end

-- Forgets what its queue says is old enough: the queues are in order of time, so the head decides.
local function purge(list, most)
    if most < 1 then return 0, false end
    local items = redis.call('LRANGE', list, 0, most - 1)
    local digests, digest_of = {}, {}
    for i = 1, #items do
        if from_bytes('>I6', items[i], 15) > now then break end
        digest_of[i] = string.sub(items[i], 1, 14)
        digests[i] = digest_of[i]
    end
    if #digests == 0 then return 0, false end
    load_records(digests)
    for _, digest in ipairs(digests) do
        local r = record_of(digest)
        if r and not r.forgotten then
            local about = r.state == REMEMBERED and r.hold ~= '' and record_of(r.hold) or r
            -- An answer about a hold that lives, or ended not long ago, stays for one more round. (Where the hold is
            -- forgotten its key may have been used again, and then stands for something else.)
            if about ~= r and about.state ~= REMEMBERED and (about.state == HELD or about.last[2] + RETENTION_MS > now) then
                queue(ended_queue, digest, RETENTION_MS)
            elseif r.state == REMEMBERED or (r.state ~= HELD and r.last[2] + RETENTION_MS <= now) then
                r.forgotten = true
                forgotten[#forgotten + 1] = digest
            end
        end
    end
    redis.call('LTRIM', list, #digests, -1)
    return #digests, #digests == most
end

verbs.expire = function(c)
    local expired, lateness_ms, more = sweep_deadlines(c[5])
    local ended, more_ended = purge(ENDED, c[6])
    local refused, more_refused = purge(REFUSED, c[6])
    return {SWEPT, expired, ended + refused, lateness_ms, more or more_ended or more_refused, 0}
end
