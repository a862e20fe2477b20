"""The ledger's tables as SQLAlchemy Core sees them. What each is for stands in `migrations/versions/*.sql`,
where they are made together with their triggers; a test keeps the two descriptions the same."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA, JSONB, TIMESTAMP

METADATA = sa.MetaData()

# Users' words and partition names are compared byte for byte.
_NAME = sa.Text(collation="C")
_BUCKETS = ("outside", "available", "held", "committed", "damaged", "in_transit")


def _place() -> list[sa.Column[object]]:
    return [sa.Column("partition", _NAME, primary_key=True), sa.Column("epoch", sa.Integer, primary_key=True)]


def _buckets() -> list[sa.Column[object]]:
    return [sa.Column(bucket, sa.BigInteger, nullable=False) for bucket in _BUCKETS]


PARTITIONS = sa.Table(
    "partitions",
    METADATA,
    sa.Column("partition", _NAME, primary_key=True),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("chain", sa.Text, nullable=False),
    sa.Column("stream_id", sa.Text, nullable=False),
    sa.Column("fence", sa.BigInteger, nullable=False),
    sa.Column("holder", sa.Text),
    sa.Column("lease_until", TIMESTAMP(timezone=True), nullable=False),
    sa.Column("halted", sa.Text),
    sa.Column("as_of", TIMESTAMP(timezone=True), nullable=False),
    sa.Column("installed_at", TIMESTAMP(timezone=True)),
)

BATCHES = sa.Table(
    "batches",
    METADATA,
    *_place(),
    sa.Column("first_seq", sa.BigInteger, primary_key=True),
    sa.Column("count", sa.Integer, nullable=False),
    sa.Column("at_ms", sa.BigInteger, nullable=False),
    sa.Column("chain", sa.Text, nullable=False),
    sa.Column("payload", BYTEA, nullable=False),
)

ENTRIES = sa.Table(
    "entries",
    METADATA,
    *_place(),
    sa.Column("seq", sa.BigInteger, primary_key=True),
    sa.Column("batch_seq", sa.BigInteger, nullable=False),
    sa.Column("at_ms", sa.BigInteger, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("hold", sa.Text),
    sa.Column("hold_seq", sa.BigInteger),
    sa.Column("buyer", _NAME),
    sa.Column("reference", sa.Text),
    sa.Column("reason", sa.Text),
    sa.Column("idempotency_key", sa.Text),
    sa.Column("fingerprint", sa.Text),
    sa.Column("expires_at_ms", sa.BigInteger),
    sa.Column("shortfall", sa.BigInteger),
    sa.Column("details", JSONB),
)
sa.Index(
    "entries_of_hold",
    ENTRIES.c.partition,
    ENTRIES.c.hold_seq,
    postgresql_where=sa.and_(ENTRIES.c.hold_seq.is_not(None), ENTRIES.c.kind != "hold"),
)
sa.Index(
    "entries_of_kind",
    ENTRIES.c.kind,
    ENTRIES.c.partition,
    ENTRIES.c.epoch,
    ENTRIES.c.seq,
    postgresql_where=ENTRIES.c.kind != "hold",
)
sa.Index(
    "entries_of_parts",
    ENTRIES.c.idempotency_key,
    postgresql_ops={"idempotency_key": "text_pattern_ops"},
    postgresql_where=sa.and_(ENTRIES.c.kind == "hold", ENTRIES.c.idempotency_key.like("part of %")),
)

POSTINGS = sa.Table(
    "postings",
    METADATA,
    *_place(),
    sa.Column("seq", sa.BigInteger, primary_key=True),
    sa.Column("step", sa.SmallInteger, primary_key=True),
    sa.Column("sku", _NAME, nullable=False),
    sa.Column("pool", _NAME, nullable=False),
    *_buckets(),
    sa.CheckConstraint(
        "outside + available + held + committed + damaged + in_transit = 0"
        " OR (outside = 0 AND held = 0 AND committed = 0 AND damaged = 0 AND in_transit = 0)",
        name="postings_balance",
    ),
)
sa.Index("postings_of_sku", POSTINGS.c.sku, POSTINGS.c.partition, POSTINGS.c.epoch, POSTINGS.c.seq)

BALANCES = sa.Table(
    "balances",
    METADATA,
    sa.Column("partition", _NAME, primary_key=True),
    sa.Column("sku", _NAME, primary_key=True),
    sa.Column("pool", _NAME, primary_key=True),
    *_buckets(),
    sa.CheckConstraint("held >= 0 AND committed >= 0 AND damaged >= 0 AND in_transit >= 0", name="balances_possible"),
)

HOLDS = sa.Table(
    "holds",
    METADATA,
    sa.Column("partition", _NAME, primary_key=True),
    sa.Column("created_seq", sa.BigInteger, primary_key=True),
    sa.Column("created_epoch", sa.Integer, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("buyer", _NAME),
    sa.Column("expires_at_ms", sa.BigInteger, nullable=False),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.CheckConstraint("state IN ('held', 'committed', 'released', 'expired')", name="holds_state"),
)
sa.Index(
    "holds_of_buyer",
    HOLDS.c.buyer,
    HOLDS.c.partition,
    HOLDS.c.created_seq,
    postgresql_where=HOLDS.c.buyer.is_not(None),
)
sa.Index("holds_by_deadline", HOLDS.c.expires_at_ms, postgresql_using="brin", postgresql_with={"pages_per_range": 16})

POLICIES = sa.Table(
    "policies",
    METADATA,
    sa.Column("partition", _NAME, primary_key=True),
    sa.Column("sku", _NAME, primary_key=True),
    sa.Column("details", JSONB, nullable=False),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("seq", sa.BigInteger, nullable=False),
)
sa.Index(
    "policies_being_counted",
    POLICIES.c.partition,
    POLICIES.c.sku,
    postgresql_where=sa.text("(details->>'counted')::integer > 0"),
)

API_KEYS = sa.Table(
    "api_keys",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("scopes", ARRAY(sa.Text), nullable=False),
    sa.Column("hash", BYTEA, nullable=False),
    sa.Column("created_at", TIMESTAMP(timezone=True), nullable=False),
    sa.Column("revoked_at", TIMESTAMP(timezone=True)),
)
