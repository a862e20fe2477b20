-- count: {verb, '', '', '', sku, part, last, buyer, units, …}: what buyers held or had bought before their SKU's first
-- limit, from the ledger, in numbered parts from 1; a part that was added before, or out of turn, changes nothing.
-- The last part writes a `policy` entry with reason buyers-counted.
-- READS stock buyers      WRITES stock buyers journal
-- REPLIES {POLICY, replayed, false, policy, epoch, seq}

verbs.count = function(c)
    local s = sku_of(c[5])
    if not s then return refuse('unknown-sku', {sku = c[5]}) end
    if s.elsewhere then return elsewhere_refusal(s) end
    local replayed = s.counted ~= c[6] and 1 or 0
    if replayed == 0 then
        for i = 8, #c, 2 do add_share(c[5], c[i], c[i + 1]) end
        s.counted = c[7] and COUNTED_ALL or s.counted + 1
        touch_sku(s)
        if c[7] then record_policy(s, c, 'buyers-counted') end
    end
    return {POLICY, replayed, false, policy_of(s), epoch, seq}
end
