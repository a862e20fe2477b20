-- changes: units move between the buckets of a pool.      READS, WRITES nothing (stock.lua does)

local CHANGE = '>B BI2c0 BI2c0 Bi4 Bi4 Bi4 Bi4 Bi4 B'
local INT32_MAX = 2147483647 -- only an amend over many lines of a pool can move more at once

local function change_bytes(p, outside, available, held, committed, damaged)
    local sku, name = p.sku, p.name
    if math.abs(available) > INT32_MAX then
        return pack({sku, name, outside, available, held, committed, damaged, 0})
    end
    return bytes(CHANGE, 152, TEXT, #sku, sku, TEXT, #name, name, INT32, outside, INT32, available, INT32, held,
        INT32, committed, INT32, damaged, 0)
end

-- Carries out one step of an entry in one pool and appends it to `changes` as the journal has it.
local function change(changes, p, outside, available, held, committed, damaged)
    p.available = p.available + available
    p.held = p.held + held
    p.committed = p.committed + committed
    p.damaged = p.damaged + damaged
    if not p.changed then touch_pool(p) end
    if sellable(p) < 0 then
        changes.short = changes.short or {}
        changes.short[p] = true
    end
    changes[#changes + 1] = change_bytes(p, outside, available, held, committed, damaged)
end

-- Units promised beyond what the pools of these changes can bear, after all of them.
local function shortfall(changes)
    local missing = 0
    for p in pairs(changes.short or {}) do missing = missing + math.max(0, -sellable(p)) end
    return missing
end

