"""Who may write a partition, by the database's clock and fence."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from flashhold.domain.entries import Batch, Entry, PoolChange
from flashhold.domain.errors import LedgerConflict, LedgerUnavailable
from flashhold.ledger.rows import Rows
from flashhold.ledger.writer import GENESIS, Fenced, Lease, LedgerWriter
from tests.ledger.tables import contents, rows


@pytest.fixture
def two(database_url: str) -> Iterator[tuple[LedgerWriter, LedgerWriter]]:
    """Two would-be writers of one partition, with leases of 300 ms."""
    writers = [LedgerWriter(database_url, "p00", holder=name, lease_ms=300) for name in ("first", "second")]
    yield writers[0], writers[1]
    for writer in writers:
        writer.close()


def batch(first_seq: int, count: int = 1, chain: str = "f" * 40) -> Batch:
    """A batch that the writer takes as it is: chains are checked before it comes to the writer."""
    return Batch("p00", f"{first_seq}-0", 1, first_seq, count, 1_000, chain, b"payload")


def receipt(seq: int, quantity: int = 5, **members: object) -> Entry:
    change = PoolChange("shoe", "default", -quantity, quantity, 0, 0, 0, 0)
    entry = Entry(
        "p00", 1, seq, 1_000, "receipt", None, f"r{seq}", "fp", None, None, None, None, None, (change,), None, ""
    )
    return entry._replace(**members)  # type: ignore[arg-type]  # whichever the test wants


def write(writer: LedgerWriter, lease: Lease, one: Batch, *entries: Entry) -> None:
    """One group through all steps."""
    into = Rows()
    into.add(one, entries)
    with writer.transaction() as transaction:
        transaction.advance(lease, one, writer.lease_ms)
        transaction.write_batches(into)
        transaction.write_entries(into)
        transaction.write_postings(into)
        transaction.write_policies(into)
        transaction.write_holds(into)
        transaction.write_balances(into)


def test_a_new_partition_begins_at_nothing(two: tuple[LedgerWriter, LedgerWriter]) -> None:
    """The first claim makes the row of the cursor: epoch 1, no entry, the genesis chain."""
    lease = two[0].claim()
    assert lease is not None
    assert lease.cursor == (1, 0, GENESIS, "0-0")
    assert lease.halted is None


def test_the_second_stands_by_until_the_lease_runs_out(two: tuple[LedgerWriter, LedgerWriter]) -> None:
    """A silent writer is replaced after its lease, not before; then its fence is worth nothing."""
    first, second = two
    lease = first.claim()
    assert lease is not None and second.claim() is None
    time.sleep(0.35)
    taken = second.claim()
    assert taken is not None and taken.fence > lease.fence
    with pytest.raises(Fenced):
        write(first, lease, batch(1), receipt(1))
    with pytest.raises(Fenced):
        first.renew(lease)
    assert first.claim() is None


def test_writing_and_renewing_keep_the_lease(two: tuple[LedgerWriter, LedgerWriter]) -> None:
    """A writer that works, or says that it lives, is never replaced."""
    first, second = two
    lease = first.claim()
    assert lease is not None
    for _ in range(4):
        time.sleep(0.15)
        first.renew(lease)
        assert second.claim() is None
    write(first, lease, batch(1), receipt(1))
    time.sleep(0.2)
    assert second.claim() is None


def test_a_lease_handed_over_is_free_at_once(two: tuple[LedgerWriter, LedgerWriter]) -> None:
    """After a clean stop nobody waits."""
    first, second = two
    lease = first.claim()
    assert lease is not None
    first.hand_over(lease)
    assert second.claim() is not None


def test_a_writer_in_the_middle_of_a_transaction_is_not_overtaken(
    database_url: str, two: tuple[LedgerWriter, LedgerWriter]
) -> None:
    """Its lease has run out, but it has the cursor's row: so the other stands by, and does not hang."""
    first, second = two
    lease = first.claim()
    assert lease is not None
    into, one = Rows(), batch(1)
    into.add(one, [receipt(1)])
    time.sleep(0.35)
    with first.transaction() as transaction:
        transaction.advance(lease, one, first.lease_ms)
        began = time.monotonic()
        assert second.claim() is None
        assert time.monotonic() - began < 1
        transaction.write_entries(into)
    assert rows(database_url, "SELECT seq FROM entries") == [(1,)]


def test_only_from_the_cursor_on(database_url: str, two: tuple[LedgerWriter, LedgerWriter]) -> None:
    """A lease whose cursor is not the database's moves nothing: not behind it, not beyond it, not on another chain."""
    writer = two[0]
    lease = writer.claim()
    assert lease is not None
    write(writer, lease, batch(1), receipt(1))
    before = contents(database_url)
    for wrong in ({"seq": 0}, {"seq": 2}, {"chain": "e" * 40}):
        believed: dict[str, Any] = {"seq": 1, "chain": "f" * 40, **wrong}
        cursor = lease.cursor._replace(**believed)
        with pytest.raises(Fenced):
            write(writer, lease._replace(cursor=cursor), batch(2), receipt(2))
        with pytest.raises(Fenced):
            writer.renew(lease._replace(cursor=cursor))
    assert contents(database_url) == before


def test_two_racing_with_one_fence_write_once(database_url: str, two: tuple[LedgerWriter, LedgerWriter]) -> None:
    """Even with the fence stolen, both start from one cursor and only one can leave it."""
    first, second = two
    lease = first.claim()
    assert lease is not None
    start, outcomes = threading.Barrier(2), []

    def race(writer: LedgerWriter) -> None:
        start.wait()
        try:
            write(writer, lease, batch(1), receipt(1))
            outcomes.append("written")
        except (Fenced, LedgerConflict) as error:
            outcomes.append(type(error).__name__)

    threads = [threading.Thread(target=race, args=(writer,)) for writer in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["Fenced", "written"]
    assert rows(database_url, "SELECT seq FROM entries") == [(1,)]
    assert rows(database_url, "SELECT available FROM balances") == [(5,)]


def test_nobody_writes_a_halted_partition(database_url: str, two: tuple[LedgerWriter, LedgerWriter]) -> None:
    """The first reason stays, every claim sees it, and only `resume` lets writing go on."""
    first, second = two
    lease = first.claim()
    assert lease is not None
    first.halt(lease, "a fork")
    first.halt(lease, "later trouble")
    with pytest.raises(Fenced):
        write(first, lease, batch(1), receipt(1))
    first.hand_over(lease)
    seen = second.claim()
    assert seen is not None and seen.halted == "a fork"
    standing = second.standing()
    assert standing is not None and standing.halted == "a fork"
    assert not second.resume(standing._replace(halted="another reason"))
    assert not second.resume(standing._replace(cursor=standing.cursor._replace(seq=1)))
    assert second.resume(standing) and not second.resume(standing)
    write(second, seen, batch(1), receipt(1))
    assert rows(database_url, "SELECT seq FROM entries") == [(1,)]


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (receipt(1, reference="a\0b"), "0x00"),
        (receipt(1, reference="\ud800"), "surrogates"),
        (receipt(1, expires_at_ms=2**63), "too big|range"),
        (receipt(1, expires_at_ms="tomorrow"), "cannot be stored"),
        (receipt(1, changes=(PoolChange("shoe", "default", -5, 4, 0, 0, 0, 0),)), "postings_balance"),
        (receipt(1, changes=(PoolChange("shoe", "default", 0, 1, -1, 0, 0, 0),)), "balances_possible"),
        (receipt(1, kind="commit", hold="hld_00" + "x" * 14 + "9"), "not in the ledger"),
    ],
)
def test_a_poisonous_entry_is_a_conflict_and_leaves_nothing(
    database_url: str, two: tuple[LedgerWriter, LedgerWriter], entry: Entry, says: str
) -> None:
    """What no column takes, what does not balance, what speaks of no hold that ever was: refused whole, in words."""
    writer = two[0]
    lease = writer.claim()
    assert lease is not None
    before = contents(database_url)
    with pytest.raises(LedgerConflict, match=says):
        write(writer, lease, batch(1), entry)
    assert contents(database_url) == before


def test_an_entry_that_is_there_already_is_a_conflict(
    database_url: str, two: tuple[LedgerWriter, LedgerWriter]
) -> None:
    """A seq issued twice is never dropped in silence, whatever its content."""
    writer = two[0]
    lease = writer.claim()
    assert lease is not None
    write(writer, lease, batch(1), receipt(1))
    fork = lease._replace(cursor=lease.cursor._replace(seq=1, chain="f" * 40))
    with pytest.raises(LedgerConflict, match=r"duplicate key|already exists"):
        write(writer, fork, batch(2), receipt(1, quantity=6))
    assert rows(database_url, "SELECT available FROM balances") == [(5,)]


def test_the_ledger_is_synchronous_whatever_the_server_says(database_url: str) -> None:
    """A server or role that is set to confirm early must not weaken what the cursor promises."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {connection.info.dbname} SET synchronous_commit = off")
    assert rows(database_url, "SHOW synchronous_commit") == [("off",)]
    writer = LedgerWriter(database_url, "p00", holder="test")
    with writer.transaction() as transaction:
        found = transaction._driver.execute("SHOW synchronous_commit").fetchone()
    writer.close()
    assert found == ("on",)


def test_away_is_unavailable_not_a_conflict() -> None:
    """Nobody listens there: worth another try, so it must not halt anything."""
    writer = LedgerWriter("postgresql://nobody@127.0.0.1:1/nothing", "p00", holder="test")
    with pytest.raises(LedgerUnavailable):
        writer.claim()
    writer.close()
