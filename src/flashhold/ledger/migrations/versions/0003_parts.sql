-- Applied by 0003_parts.py. The parts of carts over several partitions, in the order of the holds that they belong to: a
-- part's key begins with the place of its cart's first hold (domain/carts.py), and no client's key has a space in it. Of
-- any other entry the index knows nothing, so it costs a hold one comparison. Byte by byte, whatever the database's
-- collation makes of spaces.
CREATE INDEX entries_of_parts ON entries (idempotency_key text_pattern_ops)
    WHERE kind = 'hold' AND idempotency_key LIKE 'part of %';
