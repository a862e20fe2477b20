-- policies: a SKU's policy as the journal and replies have it.      READS stock      WRITES nothing

local FIELDS = {
    class = 'class', hold_ttl_ms = 'ttl_ms', hold_ttl_max_ms = 'ttl_max_ms', max_per_buyer = 'max_per_buyer',
    opens_at_ms = 'opens_at_ms', closes_at_ms = 'closes_at_ms', partition_key = 'partition_key',
    durability = 'durability'}
local UNSET = {class = '', partition_key = '', durability = ''} -- 0 for the others

-- The whole policy, as the journal and replies have it; members that are not set are left out.
local function policy_of(s)
    local policy = {pools = {}, counted = s.counted}
    for name, member in pairs(FIELDS) do
        if s[member] ~= (UNSET[name] or 0) then policy[name] = s[member] end
    end
    if s.moves then policy.elsewhere, policy.moves = s.elsewhere or '', s.moves end
    for _, name in ipairs(s.pools) do
        local p = pool_of(s.sku, name)
        policy.pools[name] = {p.safety_stock, p.oversell_allowance}
    end
    return policy
end

local function record_policy(s, c, reason)
    local changes = {}
    for _, name in ipairs(s.pools) do change(changes, pool_of(s.sku, name), 0, 0, 0, 0, 0) end
    record('policy', '', 0, c[4], c[3], '', 0, '', reason, shortfall(changes), changes, policy_of(s), '')
end
