"""The mark that a partition was made: set once, in time, and in nobody's way."""

from concurrent.futures import ThreadPoolExecutor

import psycopg

from flashhold.ledger.beginnings import mark_installed, was_installed
from flashhold.ledger.connect import connect_sync
from flashhold.ledger.writer import LedgerWriter
from tests.ledger.tables import rows


def test_one_of_many_sets_the_mark(database_url: str) -> None:
    """Of several that start at once one may make the partition, and nobody after it."""
    with ThreadPoolExecutor(4) as pool:
        first = list(pool.map(lambda _: mark_installed(database_url, "p00"), range(8)))
    assert sorted(first) == [False] * 7 + [True]
    assert mark_installed(database_url, "p01"), "every partition has its own"


def test_a_writer_and_the_mark_share_the_row(database_url: str) -> None:
    """Whichever comes first: the writer's cursor stays, and so does the mark."""
    for partition, marked_first in (("p00", True), ("p01", False)):
        if marked_first:
            assert mark_installed(database_url, partition)
        writer = LedgerWriter(database_url, partition, holder="test")
        lease = writer.claim()
        assert lease is not None and (lease.cursor.epoch, lease.cursor.seq, lease.fence) == (1, 0, 1)
        assert mark_installed(database_url, partition) is not marked_first
        writer.renew(lease)
        writer.close()
    marks = rows(database_url, "SELECT fence, installed_at > now() - interval '1 hour' FROM partitions")
    assert marks == [(1, True)] * 2


def test_whoever_makes_it_has_some_seconds(database_url: str) -> None:
    """A mark of this moment is not yet a partition that was: the worker must not restore what is only just made."""
    ledger = connect_sync(database_url)
    assert not was_installed(ledger, "p00")
    mark_installed(database_url, "p00")
    assert not was_installed(ledger, "p00")
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE partitions SET installed_at = installed_at - interval '6 seconds'")
    assert was_installed(ledger, "p00")
    ledger.dispose()
