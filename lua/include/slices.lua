-- slices: variadic calls in slices, because unpack() fails at 8,000 values.      READS, WRITES the key it is given

local SLICE = 2000 -- even, so that pairs stay together

local function write_all(command, key, values)
    for i = 1, #values, SLICE do
        redis.call(command, key, unpack(values, i, math.min(i + SLICE - 1, #values)))
    end
end

local function read_all(key, fields)
    if #fields <= SLICE then
        return #fields > 0 and redis.call('HMGET', key, unpack(fields)) or {}
    end
    local values = {}
    for i = 1, #fields, SLICE do
        local slice = redis.call('HMGET', key, unpack(fields, i, math.min(i + SLICE - 1, #fields)))
        for j = 1, #slice do values[i + j - 1] = slice[j] end
    end
    return values
end
