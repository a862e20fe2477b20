-- buyers: units that a buyer holds or has bought of a SKU.      READS buyers      WRITES buyers
-- Counted from the moment a SKU first gets a limit, and from then on for good, so that a limit that is lifted and set
-- again finds true figures. What was held and sold before is added by the worker, from the ledger (verbs/count.lua);
-- until then a release of it makes a figure that is too low by just that much, hence no clamping at zero.

-- A SKU's `counted`: 0 not at all, n > 0: since its first limit, and n - 1 parts of what was before have been added,
-- ALL: all that ever was.
local NOT_COUNTED, COUNTED_SINCE, COUNTED_ALL = 0, 1, -1

local shares, changed_shares = {}, {}

-- Notes in `fields` the share that is not loaded yet.
local function note_share(fields, sku, buyer)
    local s = skus[sku]
    local field = sku .. NUL .. buyer
    if s and s.counted ~= NOT_COUNTED and shares[field] == nil then
        shares[field] = 0
        fields[#fields + 1] = field
    end
end

local function load_buyers(fields)
    local values = read_all(BUYERS, fields)
    for i = 1, #fields do shares[fields[i]] = tonumber(values[i] or 0) end
end

local function share_of(sku, buyer)
    local field = sku .. NUL .. buyer
    if shares[field] == nil then load_buyers({field}) end
    return shares[field], field
end

local function add_share(sku, buyer, units)
    if not counted_skus or buyer == '' or units == 0 or sku_of(sku).counted == NOT_COUNTED then return end
    local share, field = share_of(sku, buyer)
    shares[field] = share + units
    changed_shares[field] = true
end

local function flush_buyers()
    local set, drop = {}, {}
    for field in pairs(changed_shares) do
        if shares[field] == 0 then
            drop[#drop + 1] = field
        else
            set[#set + 1] = field
            set[#set + 1] = string.format('%d', shares[field])
        end
    end
    write_all('HSET', BUYERS, set)
    write_all('HDEL', BUYERS, drop)
end
