-- changes: units move between the buckets of a pool.      READS nothing      WRITES nothing (stock.lua does)

local short_pools = {} -- pools that were below zero at some moment of this batch

-- Carries out one step of an entry in one pool and appends it to `changes` as the journal has it.
local function change(changes, p, outside, available, held, committed, damaged)
    p.available = p.available + available
    p.held = p.held + held
    p.committed = p.committed + committed
    p.damaged = p.damaged + damaged
    if not p.changed then touch_pool(p) end
    if sellable(p) < 0 then short_pools[p] = true end
    changes[#changes + 1] = {p.sku, p.name, outside, available, held, committed, damaged, 0}
end

-- Units promised beyond what the pools of these changes can bear, after all of them.
local function shortfall(changes)
    if next(short_pools) == nil then return 0 end
    local missing, seen = 0, {}
    for i = 1, #changes do
        local p = pools[changes[i][1]][changes[i][2]]
        if not seen[p] then missing = missing + math.max(0, -sellable(p)) end
        seen[p] = true
    end
    return missing
end
