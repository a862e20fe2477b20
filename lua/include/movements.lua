-- movements: what each kind of movement does to a pool's counters.
-- READS nothing      WRITES nothing (the flush of stock does)

local function movement_refused(message)
    return refuse('movement-refused', {message = message})
end

local function on_hand(p)
    return p.available + p.held + p.committed
end

-- Changes out of {pool, outside, available, held, committed, damaged}, …
local function moved(...)
    local changes = {}
    for _, step in ipairs({...}) do change(changes, unpack(step)) end
    return changes
end

-- One function a kind: the changes it makes, or nil and the refusal. `q` is positive but for an adjustment.
local moves = {}

local function gain(p, q)
    if on_hand(p) + q > ON_HAND_MAX then return nil, movement_refused('more than can be counted exactly') end
    return moved({p, -q, q, 0, 0, 0})
end

moves.receipt = gain
moves['return'] = gain

moves.shipment = function(p, q)
    if q > p.committed then
        return nil, movement_refused(string.format('%d are committed, so no more can be shipped', p.committed))
    end
    p.past = p.past + q
    return moved({p, q, 0, 0, -q, 0})
end

moves.cancel = function(p, q)
    if q > p.committed then
        return nil, movement_refused(string.format('%d are committed, so no more can be cancelled', p.committed))
    end
    p.past = p.past + q
    return moved({p, 0, q, 0, -q, 0})
end

moves.damage = function(p, q)
    if q > on_hand(p) then
        return nil, movement_refused(string.format('%d are on hand, so no more can be damaged', on_hand(p)))
    end
    return moved({p, 0, -q, 0, 0, q})
end

moves.adjustment = function(p, q)
    if q > 0 then return gain(p, q) end
    if -q > on_hand(p) then
        return nil, movement_refused(string.format('%d are on hand, so no more can be missing', on_hand(p)))
    end
    return moved({p, -q, q, 0, 0, 0})
end

moves.transfer = function(p, q, to)
    if q > p.available then
        return nil, movement_refused(string.format('%d are available, so no more can be transferred', p.available))
    end
    return moved({p, 0, -q, 0, 0, 0}, {to, 0, q, 0, 0, 0})
end
