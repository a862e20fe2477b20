-- loading: what the commands name, in as few look-ups as there are kinds of things.
-- READS holds, stock, buyers      WRITES nothing

-- From there to the end: sku, pool, quantity, …
local LINES_AT = {hold = 9, hold_partially = 8, hold_part = 10, commit = 10, amend = 7}
local NAMES_A_HOLD = {commit = true, release = true, extend = true, amend = true, read_hold = true, hold_part = true}

local asked = {} -- verbs of this batch
local postponed = {} -- place of a command → its reply, where its hold is too much for this batch: it is asked again

-- The digests and buyers of a run of holds; returns `digests` with those of the run. Digests have one length, so that
-- all come out of one call.
local function load_run(c, digests)
    local n, before = c[5], #digests
    c.digests = {from_bytes(string.rep('xc14', n), c[7], n < 16 and 2 or 4)}
    c.digests[n + 1] = nil -- where the reading ended
    c.buyers = unpack_msgpack(c[8])
    if before == 0 then return c.digests end -- mostly there is no other; what follows the n of the run is not its own
    for i = 1, n do digests[before + i] = c.digests[i] end
    return digests
end

local function load_batch(commands)
    local digests, fields, named = {}, {}, {}
    for i = 1, #commands do
        local c = commands[i]
        local verb = c[1]
        asked[verb] = true
        if c[2] ~= '' then digests[#digests + 1] = c[2] end
        if verb == 'hold' then digests = load_run(c, digests) end
        local at = LINES_AT[verb]
        if NAMES_A_HOLD[verb] then
            digests[#digests + 1] = c[5]
            named[#named + 1] = i
        end
        if at then
            for j = at, #c, 3 do
                local of_sku = pools[c[j]]
                if not of_sku or of_sku[c[j + 1]] == nil then stock_fields(fields, c[j], c[j + 1]) end
            end
        end
    end
    load_records(digests)
    for i = 1, #named do
        if lines_left <= 0 then
            postponed[named[i]] = {AGAIN}
        else
            local r = record_of(commands[named[i]][5])
            if r and r.lines then
                lines_left = lines_left - #r.lines
                for j = 1, #r.lines do stock_fields(fields, r.lines[j][1], r.lines[j][2]) end
            end
        end
    end
    load_stock(fields)
    if not counted_skus then return end
    local shares = {}
    for i = 1, #commands do
        local c = commands[i]
        local buyers = c.buyers or (c[1] == 'hold_partially' and {c[5]}) or {}
        for k = 1, #buyers do
            if buyers[k] ~= '' then
                for j = LINES_AT[c[1]], #c, 3 do note_share(shares, c[j], buyers[k]) end
            end
        end
    end
    load_buyers(shares)
end

