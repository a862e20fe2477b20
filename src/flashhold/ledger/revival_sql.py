"""The queries of `ledger/revival.py`. Those for pages are joined in the order in which they are written, from the few
rows that are wanted by the primary keys of the others: see `ORDERLY`."""

from flashhold.domain.entries import BUCKETS, MOVEMENT_KINDS

ORDERLY = {"join_collapse_limit": "1", "enable_hashjoin": "off", "enable_mergejoin": "off", "enable_seqscan": "off"}
"""A planner without statistics (a ledger that was just filled) finds plans that take a minute a page."""

_MOVED = ", ".join(f"p.{bucket}" for bucket in BUCKETS)
_MOVEMENTS = ", ".join(f"'{kind}'" for kind in MOVEMENT_KINDS)

ENTRY = f"""e.epoch, e.seq, e.at_ms, e.kind, e.hold, e.hold_seq, e.idempotency_key, e.fingerprint, e.buyer,
    e.expires_at_ms, e.reference, e.reason, e.shortfall, e.details, {{chain}} AS chain, p.sku, p.pool, {_MOVED}"""

AT = """
    SELECT epoch, at_ms FROM entries
     WHERE partition = :partition AND epoch = ANY (ARRAY(SELECT generate_series(1, :epoch))) AND seq = :seq"""

BALANCES = f"SELECT sku, pool, {', '.join(BUCKETS)} FROM balances WHERE partition = :partition"

PAST = """
    SELECT p.sku, p.pool, sum(-p.committed)::bigint
      FROM entries e JOIN postings p USING (partition, epoch, seq)
     WHERE e.partition = :partition AND e.kind IN ('shipment', 'cancel') GROUP BY p.sku, p.pool"""

POLICIES = "SELECT sku, details FROM policies WHERE partition = :partition"

# The figures of ledger/shares.py, for the time since: shipments name no buyer, and shipped units stay a buyer's.
SHARES = """
    SELECT e.buyer, sum(CASE WHEN e.kind = 'return' THEN -p.available ELSE p.held + p.committed END)::bigint AS units
      FROM postings p JOIN entries e USING (partition, epoch, seq)
     WHERE p.partition = :partition AND p.sku = :sku AND e.buyer IS NOT NULL
       AND (:all OR e.seq > (SELECT min(f.seq) FROM entries f JOIN postings q USING (partition, epoch, seq)
                              WHERE f.partition = :partition AND q.sku = :sku AND f.kind = 'policy'
                                AND (f.details->>'counted')::integer > 0))
     GROUP BY e.buyer HAVING sum(CASE WHEN e.kind = 'return' THEN -p.available ELSE p.held + p.committed END) <> 0
     ORDER BY e.buyer"""

_HOLDS = """
    WITH wanted AS MATERIALIZED (
        SELECT created_epoch, created_seq, seq FROM holds
         WHERE partition = %(partition)s AND {which} AND (state = 'held' OR seq >= %(first_seq)s)
         ORDER BY created_seq {most})
    SELECT w.created_epoch, w.created_seq, w.seq, e.at_ms, e.expires_at_ms, e.hold, e.fingerprint, e.buyer, e.details,
           p.sku, p.pool, p.held
      FROM wanted w
      JOIN entries e ON e.partition = %(partition)s AND e.epoch = w.created_epoch AND e.seq = w.created_seq
      JOIN postings p ON p.partition = %(partition)s AND p.epoch = w.created_epoch AND p.seq = w.created_seq
     ORDER BY w.created_seq, p.step"""

HOLDS = _HOLDS.format(which="created_seq > %(after)s", most="LIMIT %(most)s")

HOLDS_AT = _HOLDS.format(which="created_seq = ANY(%(seqs)s::bigint[])", most="")

MADE = """
    SELECT seq, hold FROM entries
     WHERE partition = :partition AND epoch = ANY (ARRAY(SELECT generate_series(1, :epoch)))
       AND seq = ANY (CAST(:seqs AS bigint[])) AND kind = 'hold'"""

LIVES = f"""
    SELECT {ENTRY.format(chain="NULL")}
      FROM unnest(CAST(:hold_seqs AS bigint[])) w (hold_seq)
      JOIN entries e ON e.partition = :partition AND e.hold_seq = w.hold_seq
                    AND e.hold_seq IS NOT NULL AND e.kind <> 'hold'
      LEFT JOIN postings p ON e.kind IN ('commit', 'cancel', 'return')
                          AND p.partition = :partition AND p.epoch = e.epoch AND p.seq = e.seq
     WHERE e.kind IN ('commit', 'release', 'expire', 'extend', 'amend', 'cancel', 'return')
     ORDER BY e.hold_seq, e.epoch, e.seq, p.step"""

MOVEMENTS = f"""
    SELECT {ENTRY.format(chain="b.chain")}
      FROM entries e
      JOIN batches b ON b.partition = e.partition AND b.epoch = e.epoch AND b.first_seq = e.batch_seq
      JOIN postings p ON p.partition = e.partition AND p.epoch = e.epoch AND p.seq = e.seq
     WHERE e.partition = :partition AND e.kind <> 'hold' AND e.kind IN ({_MOVEMENTS})
       AND (e.epoch, e.seq) >= (:first_epoch, :first_seq) AND e.idempotency_key IS NOT NULL
     ORDER BY e.epoch, e.seq, p.step"""

POLICY_ANSWERS = """
    SELECT e.epoch, e.seq, e.idempotency_key, e.fingerprint, e.details,
           NOT EXISTS (SELECT FROM postings q WHERE q.partition = e.partition AND q.seq < e.seq AND q.sku = (
               SELECT p.sku FROM postings p
                WHERE p.partition = e.partition AND p.epoch = e.epoch AND p.seq = e.seq LIMIT 1)) AS created
      FROM entries e
     WHERE e.partition = :partition AND e.kind <> 'hold' AND e.kind = 'policy'
       AND (e.epoch, e.seq) >= (:first_epoch, :first_seq) AND e.idempotency_key IS NOT NULL
     ORDER BY e.epoch, e.seq"""

QUEUE = f"""
    SELECT CASE WHEN kind IN ('commit', 'release', 'expire') THEN hold END AS ended, idempotency_key, at_ms
      FROM entries
     WHERE partition = :partition AND (epoch, seq) >= (:first_epoch, :first_seq) AND kind <> 'hold'
       AND kind IN ('commit', 'release', 'expire', 'extend', 'amend', 'policy', {_MOVEMENTS})
       AND (kind IN ('commit', 'release', 'expire') OR idempotency_key IS NOT NULL)
     ORDER BY epoch, seq"""
