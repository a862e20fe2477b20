-- The ledger as it was first laid down. Applied by 0001_ledger.py; `ledger/tables.py` describes the same
-- tables to SQLAlchemy, and a test holds the two together. Names of users are compared byte for byte, hence "C".

-- How far each partition has come, and who may write it. A writer's every transaction advances this row
-- under its own fence, so rows and cursor are one, and a writer that was overtaken moves nothing. `as_of`: all that
-- was decided until then is here. `halted`: why nobody may write, until someone has looked.
CREATE TABLE partitions (
    partition   text COLLATE "C" PRIMARY KEY,
    epoch       integer NOT NULL,
    seq         bigint NOT NULL,
    chain       text NOT NULL,
    stream_id   text NOT NULL,
    fence       bigint NOT NULL,
    holder      text,
    lease_until timestamptz NOT NULL,
    halted      text,
    as_of       timestamptz NOT NULL
);

-- What was hashed, byte for byte: the chain can be proved from this table alone.
CREATE TABLE batches (
    partition text COLLATE "C" NOT NULL,
    epoch     integer NOT NULL,
    first_seq bigint NOT NULL,
    count     integer NOT NULL,
    at_ms     bigint NOT NULL,
    chain     text NOT NULL,
    payload   bytea NOT NULL,
    PRIMARY KEY (partition, epoch, first_seq)
);
-- lz4 packs a payload four times faster than the default; a server built without it keeps its own.
DO $$
BEGIN
    ALTER TABLE batches ALTER payload SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN
    NULL;
END
$$;

-- One row a command that changed something. `batch_seq` is the first_seq of its batch, where its chain is.
-- `hold_seq` is the seq at which the hold that it speaks of began: it grows with the table, so its index is
-- filled at one end, where an index on the id's text would be written all over.
CREATE TABLE entries (
    partition       text COLLATE "C" NOT NULL,
    epoch           integer NOT NULL,
    seq             bigint NOT NULL,
    batch_seq       bigint NOT NULL,
    at_ms           bigint NOT NULL,
    kind            text NOT NULL,
    hold            text,
    hold_seq        bigint,
    buyer           text COLLATE "C",
    reference       text,
    reason          text,
    idempotency_key text,
    fingerprint     text,
    expires_at_ms   bigint,
    shortfall       bigint,
    details         jsonb,
    PRIMARY KEY (partition, epoch, seq)
);
-- A hold's first entry is found by its seq, which is in the hold's id; these two are for all that follow it.
-- Leaving the holds themselves out halves the indexes' cost on the hottest path, and `kind = 'hold'` needs none:
-- every other verb on a hold has a hold before it, so holds are never rare.
CREATE INDEX entries_of_hold ON entries (partition, hold_seq) WHERE hold_seq IS NOT NULL AND kind <> 'hold';
CREATE INDEX entries_of_kind ON entries (kind, partition, epoch, seq) WHERE kind <> 'hold';

-- The units that an entry moved: a row a step and pool, a column a bucket. Every row balances, except the two
-- of a transfer, which shift `available` from pool to pool; that those two balance is for the audit to say.
CREATE TABLE postings (
    partition  text COLLATE "C" NOT NULL,
    epoch      integer NOT NULL,
    seq        bigint NOT NULL,
    step       smallint NOT NULL,
    sku        text COLLATE "C" NOT NULL,
    pool       text COLLATE "C" NOT NULL,
    outside    bigint NOT NULL,
    available  bigint NOT NULL,
    held       bigint NOT NULL,
    committed  bigint NOT NULL,
    damaged    bigint NOT NULL,
    in_transit bigint NOT NULL,
    PRIMARY KEY (partition, epoch, seq, step),
    CONSTRAINT postings_balance CHECK (
        outside + available + held + committed + damaged + in_transit = 0
        OR (outside = 0 AND held = 0 AND committed = 0 AND damaged = 0 AND in_transit = 0)
    )
);
CREATE INDEX postings_of_sku ON postings (sku, partition, epoch, seq);

-- The sum of the postings, kept beside them. `available` may fall below zero (a marked shortfall), what is
-- promised or counted elsewhere may not.
CREATE TABLE balances (
    partition  text COLLATE "C" NOT NULL,
    sku        text COLLATE "C" NOT NULL,
    pool       text COLLATE "C" NOT NULL,
    outside    bigint NOT NULL,
    available  bigint NOT NULL,
    held       bigint NOT NULL,
    committed  bigint NOT NULL,
    damaged    bigint NOT NULL,
    in_transit bigint NOT NULL,
    PRIMARY KEY (partition, sku, pool),
    CONSTRAINT balances_possible CHECK (held >= 0 AND committed >= 0 AND damaged >= 0 AND in_transit >= 0)
) WITH (fillfactor = 50);

-- Where each hold stands: what is asked for when pages of holds are cut. Everything else about a hold is in its
-- entries and is folded from them when it is read, so nothing is written twice. An index on `state` would cost
-- every hold another write at its birth and at its end; a hold that is still held has its deadline ahead, and
-- the deadlines rise with the table, so a block-range index finds those for next to nothing. Half of each page is
-- left free: nearly every hold ends once, and with room beside it the indexes need not hear of that (40 % cheaper).
CREATE TABLE holds (
    partition     text COLLATE "C" NOT NULL,
    created_seq   bigint NOT NULL,
    created_epoch integer NOT NULL,
    state         text NOT NULL,
    buyer         text COLLATE "C",
    expires_at_ms bigint NOT NULL,
    epoch         integer NOT NULL,
    seq           bigint NOT NULL,
    PRIMARY KEY (partition, created_seq),
    CONSTRAINT holds_state CHECK (state IN ('held', 'committed', 'released', 'expired'))
) WITH (fillfactor = 50);
CREATE INDEX holds_of_buyer ON holds (buyer, partition, created_seq) WHERE buyer IS NOT NULL;
CREATE INDEX holds_by_deadline ON holds USING brin (expires_at_ms) WITH (pages_per_range = 16);

-- Each SKU's rules as its latest policy entry leaves them.
CREATE TABLE policies (
    partition text COLLATE "C" NOT NULL,
    sku       text COLLATE "C" NOT NULL,
    details   jsonb NOT NULL,
    epoch     integer NOT NULL,
    seq       bigint NOT NULL,
    PRIMARY KEY (partition, sku)
);
-- The few SKUs whose buyers' earlier units still have to be added to their limit.
CREATE INDEX policies_being_counted ON policies (partition, sku) WHERE (details->>'counted')::integer > 0;

-- Keys of the API: only their SHA-256 is kept, the key itself is shown once and never again.
CREATE TABLE api_keys (
    id         text PRIMARY KEY,
    name       text NOT NULL,
    scopes     text[] NOT NULL,
    hash       bytea NOT NULL,
    created_at timestamptz NOT NULL,
    revoked_at timestamptz
);

-- What is written is written, for every role and also while replicating; a correction is an entry of its own.
CREATE FUNCTION ledger_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the ledger is append-only: % on % refused', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'integrity_constraint_violation',
              HINT = 'Correct it with an entry of its own.';
END
$$;

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON entries
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_is_append_only();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON postings
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_is_append_only();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON batches
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_is_append_only();
ALTER TABLE entries ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE postings ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE batches ENABLE ALWAYS TRIGGER append_only;
