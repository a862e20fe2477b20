"""The ledger's tables: as they are described, as they are made, and that nobody can rewrite them."""

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from flashhold.domain.errors import LedgerUnavailable, Misconfigured
from flashhold.ledger import upgrade
from flashhold.ledger.connect import connect_sync
from flashhold.ledger.tables import METADATA
from flashhold.ledger.writer import LedgerWriter
from flashhold.services.write_behind import Journal, WriteBehind
from tests.ledger.journals import HandJournal
from tests.ledger.tables import contents, rows

REWRITES = [
    "UPDATE {} SET epoch = epoch",
    "UPDATE {} SET epoch = 2 WHERE false",
    "DELETE FROM {}",
    "TRUNCATE {}",
]


def test_tables_and_migrations_describe_one_schema(empty_database_url: str) -> None:
    """What the migrations make is what `tables.py` says, down to types, defaults and indexes."""
    upgrade(empty_database_url)
    engine = connect_sync(empty_database_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, METADATA) == []
        indexes = _indexes(connection.exec_driver_sql(_INDEXES).fetchall())
        connection.exec_driver_sql("CREATE SCHEMA described")
        connection.exec_driver_sql("SET search_path TO described")
        METADATA.create_all(connection)
        described = _indexes(connection.exec_driver_sql(_INDEXES).fetchall())
        checks = connection.exec_driver_sql(_CHECKS).fetchall()
        connection.rollback()
    engine.dispose()
    assert described == indexes, "alembic compares neither an index's condition nor its method"
    assert len(checks) == 2 * len({name for name, _ in checks}) == 2 * len(set(checks)), "every CHECK twice, and alike"


_INDEXES = (
    "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = current_schema() AND tablename <> 'alembic_version'"
)
_CHECKS = """SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint
              WHERE contype = 'c' AND connamespace::regnamespace::text IN ('public', 'described')"""


def _indexes(found: list[tuple[str, str]]) -> dict[str, str]:
    return {name: text.replace("described.", "public.") for name, text in found}


def test_upgrade_is_safe_for_many_at_once(empty_database_url: str) -> None:
    """Every process may upgrade at its start: the tables are made once, and all of them get on."""
    with ThreadPoolExecutor(4) as pool:
        revisions = list(pool.map(upgrade, [empty_database_url] * 4))
    assert len(set(revisions)) == 1 and revisions[0]
    assert rows(empty_database_url, "SELECT version_num FROM alembic_version") == [(revisions[0],)]


@pytest.mark.parametrize("role", ["origin", "replica"])
@pytest.mark.parametrize("table", ["entries", "postings", "batches"])
@pytest.mark.parametrize("rewrite", REWRITES)
def test_what_is_written_cannot_be_rewritten(
    database_url: str, one_redis_url: str, table: str, rewrite: str, role: str
) -> None:
    """UPDATE, DELETE and TRUNCATE are refused, for a superuser too, also with triggers off for replication."""
    journal = HandJournal(one_redis_url)
    journal.fill(2)
    writing = WriteBehind(Journal(journal.client, "p00"), LedgerWriter(database_url, "p00", holder="test"))
    writing.drain()
    writing.close()
    journal.close()
    before = contents(database_url)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"SET session_replication_role = {role}")
        with pytest.raises(psycopg.errors.IntegrityConstraintViolation, match="append-only"):
            connection.execute(rewrite.format(table))
    assert contents(database_url) == before
    assert len(before["entries"]) == journal.seq


def test_a_database_that_is_not_postgres_is_refused_in_words() -> None:
    """SQLite is not the ledger, and a URL that cannot be read is said to be one."""
    with pytest.raises(Misconfigured, match="Postgres"):
        upgrade("sqlite:///ledger.db")
    with pytest.raises(Misconfigured, match="postgresql://"):
        upgrade("nonsense")


def test_a_database_that_is_away_is_unavailable() -> None:
    """Nobody listens there: the driver's error comes as ours."""
    with pytest.raises(LedgerUnavailable):
        upgrade("postgresql://nobody@127.0.0.1:1/nothing")
