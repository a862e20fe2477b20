"""The mark that a partition has been made: an empty Redis beside it is a loss, however little the ledger has.

It stands before Redis holds anything of the partition, hence before anything was acknowledged. Of all that would make
the partition one gets to set it, and only that one may: whoever comes later and finds Redis empty finds a loss.
"""

import sqlalchemy as sa
from sqlalchemy import text

from flashhold.ledger.connect import connect_sync, translated
from flashhold.ledger.writer import GENESIS

MAKING_S = 5
"""How long whoever has set the mark may take to make the partition: until then an empty Redis is not a loss yet."""

_MARK = text("""
    INSERT INTO partitions (partition, epoch, seq, chain, stream_id, fence, lease_until, as_of, installed_at)
    VALUES (:partition, 1, 0, :genesis, '0-0', 0, '-infinity', to_timestamp(0), clock_timestamp())
    ON CONFLICT (partition)
    DO UPDATE SET installed_at = excluded.installed_at WHERE partitions.installed_at IS NULL""")

_HOW_MANY = text("SELECT count(*) FROM partitions WHERE installed_at IS NOT NULL")

_MADE = text(f"""
    SELECT FROM partitions
     WHERE partition = :partition AND installed_at < clock_timestamp() - interval '{MAKING_S} seconds'""")


def mark_installed(database_url: str, partition: str) -> bool:
    """Set the mark; False where it was set already. Raises `LedgerUnavailable`."""
    engine = connect_sync(database_url, name="beginning")
    try:
        with translated(), engine.begin() as connection:
            return connection.execute(_MARK, {"partition": partition, "genesis": GENESIS}).rowcount == 1
    finally:
        engine.dispose()


def installed_partitions(database_url: str) -> int:
    """How many partitions have the mark. Raises `LedgerUnavailable`."""
    engine = connect_sync(database_url, name="beginning")
    try:
        with translated(), engine.connect() as connection:
            return int(connection.execute(_HOW_MANY).scalar_one())
    finally:
        engine.dispose()


def was_installed(ledger: sa.Engine, partition: str) -> bool:
    """The mark is there, and has been for long enough. Raises `LedgerUnavailable`."""
    with translated(), ledger.connect() as connection:
        return connection.execute(_MADE, {"partition": partition}).first() is not None
