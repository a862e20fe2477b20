-- read_hold:  {verb, '', '', '', hold digest, hold seq}      REPLIES {HOLD, 0, …}
-- read_stock: {verb, '', '', '', sku, pool}
--             REPLIES {STOCK_READ, {available, held, committed, damaged, in_transit, safety_stock, oversell_allowance}, policy, seq}
-- A read first expires what is overdue, so that it shows nothing as held that no longer is, sweeper or none.
-- READS stock holds due buyers      WRITES stock holds due ended buyers journal

verbs.read_hold = function(c)
    local r = hold_of(c[5], c[6])
    if not r then return refuse('unknown-hold', {}) end
    return hold_reply(r, 0)
end

verbs.read_stock = function(c)
    local s = sku_of(c[5])
    if not s then return refuse('unknown-sku', {sku = c[5]}) end
    if s.elsewhere then return elsewhere_refusal(s) end
    local p = pool_of(c[5], c[6])
    if not p then return {STOCK_READ, {0, 0, 0, 0, 0, 0, 0}, policy_of(s), seq} end
    if not take_back(p, math.huge) then return {AGAIN} end
    return {STOCK_READ, {p.available, p.held, p.committed, p.damaged, p.in_transit, p.safety_stock, p.oversell_allowance},
        policy_of(s), seq}
end
