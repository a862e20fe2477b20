"""Exactly once, in order, or not at all: the write-behind under kills, rivals, lies and absent stores."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from psycopg.conninfo import conninfo_to_dict

from flashhold.domain.errors import LedgerUnavailable, StoreUnavailable
from flashhold.embedded.servers import PostgresServer
from flashhold.engine.journal import Journal
from flashhold.ledger.writer import LedgerWriter
from flashhold.services.gauges import WorkerGauges
from flashhold.services.resume import resume
from flashhold.services.write_behind import STEPS, WriteBehind, WriteBehindOptions
from tests.ledger.journals import HandJournal, committed, entry, held, id_of, receipt
from tests.ledger.tables import contents, rows
from tests.services.refusal import refusing
from tests.services.write_and_die import KILLED

ROOT = Path(__file__).parents[2]

Make = Callable[..., WriteBehind]


@pytest.fixture
def make(one_redis_url: str, database_url: str) -> Iterator[Make]:
    """Makes write-behinds between the two stores: `make(holder, lease_ms=…, option=…)`."""
    made: list[WriteBehind] = []
    clients: list[Any] = []

    def one(holder: str = "test", *, lease_ms: int = 15_000, url: str = database_url, **options: Any) -> WriteBehind:
        client = redis.Redis.from_url(one_redis_url, retry=None)
        writer = LedgerWriter(url, "p00", holder=holder, lease_ms=lease_ms)
        chosen = WriteBehindOptions(**{"block_ms": 50, "margin_ms": 0, **options})
        made.append(WriteBehind(Journal(client, "p00"), writer, options=chosen))
        clients.append(client)
        return made[-1]

    yield one
    for write_behind in made:
        write_behind.close()
    for client in clients:
        client.close()


@pytest.fixture
def copy_of(postgres: PostgresServer) -> Iterator[Callable[[str], str]]:
    """Copies a database that nobody is connected to."""
    copies: list[str] = []

    def execute(statement: str) -> None:
        with psycopg.connect(postgres.database_url("postgres"), autocommit=True) as connection:
            connection.execute(statement)

    def copy(database_url: str) -> str:
        name = conninfo_to_dict(database_url)["dbname"]
        copies.append(f"{name}_copy_{len(copies)}")
        execute(f'CREATE DATABASE "{copies[-1]}" TEMPLATE "{name}"')
        return postgres.database_url(copies[-1])

    yield copy
    for name in copies:
        execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def empty_ledger(database_url: str, copy_of: Callable[[str], str]) -> str:
    """A second fresh ledger beside `database_url`."""
    return copy_of(database_url)


def halted(database_url: str) -> str | None:
    """Why the partition is stopped."""
    found: str | None = rows(database_url, "SELECT halted FROM partitions")[0][0]
    return found


def run_into(write_behind: WriteBehind, database_url: str) -> str:
    """Turn until the partition stops; why it did."""
    for _ in range(20):
        write_behind.turn(block=False)
    said = halted(database_url)
    assert said is not None, "it did not stop"
    return said


def until(what: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for something that another thread does."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture
def running() -> Iterator[Callable[[WriteBehind], threading.Thread]]:
    """Runs a write-behind in a thread until the test's end."""
    started: list[tuple[WriteBehind, threading.Thread]] = []

    def run(write_behind: WriteBehind) -> threading.Thread:
        thread = threading.Thread(target=write_behind.run)
        thread.start()
        started.append((write_behind, thread))
        return thread

    yield run
    for write_behind, thread in started:
        write_behind.stop()
        thread.join(10)
        assert not thread.is_alive()


def test_everything_is_written_once_and_adds_up(journal: HandJournal, make: Make, database_url: str) -> None:
    """All entries in order, balances as their sum, holds as their last entry leaves them, the cursor at the end."""
    journal.fill(20)
    drained = make(batches_max=3).drain()
    found = contents(database_url)
    assert drained.entries == journal.seq == len(found["entries"]) and drained.batches == 21
    assert rows(database_url, "SELECT seq FROM entries ORDER BY seq") == [(seq,) for seq in range(1, journal.seq + 1)]
    assert found["place"] == [("p00", 1, journal.seq, journal.chain, None)]
    sums = "sum(outside), sum(available), sum(held), sum(committed), sum(damaged), sum(in_transit)"
    folded = rows(database_url, f"SELECT partition, sku, pool, {sums} FROM postings GROUP BY 1, 2, 3 ORDER BY 1, 2, 3")
    assert [tuple(map(str, row)) for row in folded] == [tuple(map(str, row)) for row in found["balances"]]
    states = dict(rows(database_url, "SELECT state, count(*) FROM holds GROUP BY 1"))
    assert states == {"held": 4, "committed": 40, "released": 36}
    assert make("again").drain().entries == 0
    assert contents(database_url) == found


def test_the_grouping_does_not_show(journal: HandJournal, make: Make, database_url: str, empty_ledger: str) -> None:
    """Batch by batch or all at once: the same ledger."""
    journal.fill(12)
    make(margin_ms=60_000).drain()
    make("single", url=empty_ledger, batches_max=1).drain()
    assert contents(empty_ledger) == contents(database_url)


@pytest.mark.parametrize("turns", [0, 2])
@pytest.mark.parametrize("step", [*(step.name for step in STEPS), "end"])
def test_killed_before_any_step_the_next_one_finishes_exactly_once(
    journal: HandJournal, make: Make, database_url: str, one_redis_url: str, empty_ledger: str, step: str, turns: int
) -> None:
    """Kill -9 between any two steps, in the first turn and later: the successor ends with the ledger of a calm run."""
    journal.fill(12)
    make("calm", url=empty_ledger, margin_ms=600_000).drain()
    command = [sys.executable, "-m", "tests.services.write_and_die", step, str(turns), one_redis_url, database_url]
    died = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert died.returncode == KILLED, died.stderr
    sealed = turns + (step in ("trim", "end"))
    assert len({row[3] for row in contents(database_url)["entries"]}) == 3 * sealed, "only sealed groups are there"
    successor = make("successor", lease_ms=400)
    end = time.monotonic() + 10
    while rows(database_url, "SELECT coalesce(max(seq), 0) FROM entries") != [(journal.seq,)]:
        assert time.monotonic() < end
        successor.turn()
    assert contents(database_url) == contents(empty_ledger)


def test_two_workers_end_as_one(
    journal: HandJournal, make: Make, running: Callable[[WriteBehind], threading.Thread], database_url: str
) -> None:
    """Started by mistake side by side while selling goes on: one writes, and takes turns with nobody."""
    first, second = make("first", lease_ms=1000, batches_max=2), make("second", lease_ms=1000, batches_max=2)
    running(first)
    running(second)
    for _ in range(5):
        journal.fill(4)
        time.sleep(0.05)
    until(lambda: rows(database_url, "SELECT seq FROM partitions") == [(journal.seq,)])
    assert rows(database_url, "SELECT count(*), count(DISTINCT seq) FROM entries") == [(journal.seq, journal.seq)]
    wrote = [one.gauges.entries._value.get() for one in (first, second)]
    assert sorted(wrote) == [0, journal.seq], "the second is a stand-by"
    assert halted(database_url) is None


def test_the_stand_by_takes_over_when_the_first_falls_silent(
    journal: HandJournal, make: Make, running: Callable[[WriteBehind], threading.Thread], database_url: str
) -> None:
    """The first is overtaken, notices it at its next write, and writes nothing more."""
    journal.fill(3)
    silent = make("silent", lease_ms=300, batches_max=1)
    assert silent.turn(block=False)
    journal.fill(3)
    running(make("stand-by", lease_ms=300))
    until(lambda: rows(database_url, "SELECT seq FROM partitions") == [(journal.seq,)])
    before = contents(database_url)
    for _ in range(3):
        assert silent.turn(block=False) is None
    assert contents(database_url) == before
    assert silent.gauges.writing._value.get() == 0


def test_an_overtaken_writer_in_mid_flight_adds_nothing(journal: HandJournal, make: Make, database_url: str) -> None:
    """It has read its group; the other takes over and writes the same before it begins: fenced, not doubled."""
    journal.fill(6)
    slow = make("slow", lease_ms=100)
    fast = make("fast", lease_ms=100)

    def overtake(_: WriteBehind, __: Any) -> None:
        time.sleep(0.15)
        assert fast.drain().entries == journal.seq

    at = [step.name for step in STEPS].index("begin")
    slow._steps = (*STEPS[:at], STEPS[0]._replace(take=overtake), *STEPS[at:])
    assert slow.turn(block=False) is None
    assert rows(database_url, "SELECT count(*), count(DISTINCT seq) FROM entries") == [(journal.seq, journal.seq)]
    assert halted(database_url) is None


LIES = {
    "a flipped byte": ({"payload": b"\x91\x8d"}, "breaks the chain"),
    "another head": ({"chain": "0" * 40}, "breaks the chain"),
    "a gap": ({"seq": 900}, "does not follow"),
    "a repetition": ({"seq": 1}, "does not follow"),
    "an epoch that has ended": ({"epoch": 0}, "epoch that has ended"),
    "more entries than it has": ({"count": 5}, "breaks the chain"),
    "another time": ({"at": 5}, "breaks the chain"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_batch_that_cannot_follow_halts_the_partition(
    journal: HandJournal, make: Make, database_url: str, lie: str
) -> None:
    """All before it is kept, nothing from it on, and the reason names it; nobody skips it, also not after a restart."""
    wrong, reason = LIES[lie]
    journal.fill(5)
    good = journal.seq
    stream_id = journal.put(receipt("hat", 3), **wrong)
    journal.put(receipt("cap", 3))
    write_behind = make()
    said = run_into(write_behind, database_url)
    assert reason in said and stream_id in said
    assert rows(database_url, "SELECT max(seq), count(*) FROM entries") == [(good, good)]
    assert write_behind.gauges.halted._value.get() == 1
    again = make("again")
    write_behind.close()
    assert again.drain().entries == 0
    assert rows(database_url, "SELECT max(seq) FROM entries") == [(good,)]


POISON = {
    "no entries at all": (b"\xc1", "cannot be read"),
    "an entry of another form": (b"\x91\x93\x01\x02\x03", "cannot be read"),
    "one entry too few": (b"\x90", "cannot be read"),
}


@pytest.mark.parametrize("poison", POISON)
def test_a_payload_that_cannot_be_read_halts_the_partition(
    journal: HandJournal, make: Make, database_url: str, poison: str
) -> None:
    """Though its chain is right: what cannot be decoded is not skipped."""
    payload, reason = POISON[poison]
    journal.fill(2)
    good = journal.seq
    journal.put_payload(payload, 1)
    write_behind = make()
    said = run_into(write_behind, database_url)
    assert reason in said
    assert rows(database_url, "SELECT max(seq) FROM entries") == [(good,)]


def test_a_poisonous_entry_halts_and_all_before_it_are_kept(
    journal: HandJournal, make: Make, database_url: str
) -> None:
    """One entry that the ledger refuses, in the middle of a group: the batches before it are written, it is named."""
    journal.fill(4)
    good = journal.seq
    journal.put(committed(good + 77, "shoe"))
    journal.put(receipt("cap", 3))
    write_behind = make()
    said = run_into(write_behind, database_url)
    assert f"1/{good + 1}" in said
    assert rows(database_url, "SELECT max(seq) FROM entries") == [(good,)]


UNPLACEABLE = {
    "a commit of no hold": entry("commit", [["shoe", "default", 0, 0, -1, 1, 0, 0]]),
    "a hold that is none": entry("commit", [["shoe", "default", 0, 0, -1, 1, 0, 0]], hold=("short", 1)),
    "a policy without fields": entry("policy", [["shoe", "default", 0, 0, 0, 0, 0, 0]]),
    "half a unit": entry("receipt", [["shoe", "default", -0.5, 0.5, 0, 0, 0, 0]]),
    "units in words": entry("receipt", [["shoe", "default", "-1", "1", 0, 0, 0, 0]]),
    "a kind that is a list": [["receipt"], *receipt("shoe", 1)[1:]],
    "a sku that is a number": entry("receipt", [[5, "default", -1, 1, 0, 0, 0, 0]]),
}


@pytest.mark.parametrize("unplaceable", UNPLACEABLE)
def test_an_entry_that_cannot_be_placed_halts_and_leaves_nothing_of_its_batch(
    journal: HandJournal, make: Make, database_url: str, unplaceable: str
) -> None:
    """Its neighbours in the batch are fine, the batches before it too: these are kept whole, of its own nothing is."""
    journal.fill(4)
    good = journal.seq
    journal.put(receipt("hat", 3), receipt("shoe", 1), UNPLACEABLE[unplaceable], receipt("cap", 3))
    write_behind = make()
    assert run_into(write_behind, database_url)
    assert rows(database_url, "SELECT max(seq), count(*) FROM entries") == [(good, good)]
    assert rows(database_url, "SELECT count(*) FROM batches") == [(5,)]
    assert rows(database_url, "SELECT count(*) FROM postings WHERE seq > %s", good) == [(0,)]
    assert rows(database_url, "SELECT sku FROM balances ORDER BY sku") == [("shoe",), ("sock",)]


def test_after_someone_has_looked_it_goes_on(journal: HandJournal, make: Make, database_url: str) -> None:
    """A partition whose cause is gone goes on exactly where it stopped."""
    journal.fill(2)
    good = journal.seq
    lie = journal.put(receipt("hat", 3), chain="0" * 40)
    write_behind = make()
    assert run_into(write_behind, database_url)
    record = journal.client.xrange(journal.keys.journal, lie, lie)[0][1]
    journal.client.xdel(journal.keys.journal, lie)
    journal.client.xadd(journal.keys.journal, {**record, b"chain": journal.chain})
    writer = LedgerWriter(database_url, "p00", holder="someone")
    assert resume(Journal(journal.client, "p00"), writer).resumed
    writer.close()
    assert write_behind.drain().entries == 1
    assert rows(database_url, "SELECT max(seq) FROM entries") == [(good + 1,)]


def test_a_record_that_no_script_wrote_halts_the_partition(journal: HandJournal, make: Make, database_url: str) -> None:
    """Somebody added to the stream by hand: all before it is kept, and it is not passed over."""
    journal.fill(3)
    journal.client.xadd(journal.keys.journal, {"hello": "world"})
    write_behind = make()
    said = run_into(write_behind, database_url)
    assert "no script wrote" in said
    assert rows(database_url, "SELECT max(seq) FROM entries") == [(journal.seq,)]


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ({"seq": 999}, "has nothing behind"),
        ({"chain": "e" * 40}, "different histories"),
    ],
)
def test_a_store_that_stands_elsewhere_is_found_when_idle(
    journal: HandJournal, make: Make, database_url: str, place: dict[str, Any], reason: str
) -> None:
    """A lost journal, a fork: found within a look, without waiting for the next entry."""
    journal.fill(2)
    write_behind = make()
    write_behind.drain()
    journal.client.hset(journal.keys.meta, mapping=place)
    for _ in range(4):
        write_behind.turn(block=False)
        time.sleep(0.01)
    said = halted(database_url)
    assert said is not None and reason in said


def test_an_empty_store_is_not_a_conflict(journal: HandJournal, make: Make, database_url: str) -> None:
    """A store that was emptied is for the restore to fill: the worker waits."""
    journal.fill(2)
    write_behind = make()
    write_behind.drain()
    journal.client.flushall()
    for _ in range(4):
        write_behind.turn(block=False)
        time.sleep(0.01)
    assert halted(database_url) is None


def test_trimming_never_passes_what_postgres_has(journal: HandJournal, make: Make, database_url: str) -> None:
    """At every single step, everything behind the ledger's cursor is still in the journal."""
    journal.fill(12)
    everything = journal.ids()
    write_behind = make(batches_max=2, group_entries=4)
    seen = set()

    def watched(step: Any) -> Any:
        def take(one: WriteBehind, turn: Any) -> None:
            step.take(one, turn)
            cursor = rows(database_url, "SELECT stream_id FROM partitions")[0][0]
            unwritten = everything[everything.index(cursor) + 1 :] if cursor in everything else everything
            left = journal.ids()
            assert left[-len(unwritten) :] == unwritten if unwritten else True, f"lost at {step.name}"
            seen.add(len(left))

        return step._replace(take=take)

    write_behind._steps = tuple(watched(step) for step in STEPS)
    write_behind.drain()
    assert len(seen) > 3, "it must have trimmed for this to show anything"


def test_the_margin_keeps_what_was_just_written(
    journal: HandJournal, make: Make, database_url: str, copy_of: Callable[[str], str]
) -> None:
    """Written batches stay for a while: a Postgres that fails over to a lagging standby gets them again."""
    journal.fill(2)
    before = make(margin_ms=60_000)
    before.drain()
    before.close()
    standby = copy_of(database_url)
    journal.fill(6)
    make(margin_ms=60_000).drain()
    assert make("after the failover", url=standby).drain().batches == 7
    assert contents(standby) == contents(database_url)


def test_an_idle_journal_is_emptied_down_to_its_last_batch(
    journal: HandJournal, make: Make, running: Callable[[WriteBehind], threading.Thread]
) -> None:
    """When nothing more comes, the margin runs out too, and Redis gets its memory back."""
    journal.fill(6)
    running(make(margin_ms=200))
    until(lambda: len(journal.ids()) == 1, seconds=5)


def test_postgres_away_loses_nothing(
    journal: HandJournal, make: Make, running: Callable[[WriteBehind], threading.Thread], database_url: str
) -> None:
    """Its sessions end and it refuses new ones for a while: the journal waits whole, then all is written once."""
    write_behind = make(patience_ms=300, lease_ms=1000, batches_max=2)
    running(write_behind)
    journal.fill(3)
    until(lambda: rows(database_url, "SELECT seq FROM partitions") == [(journal.seq,)])
    with refusing(database_url):
        last = journal.ids()[-1]
        journal.fill(10)
        until(lambda: write_behind.gauges.failures.labels("postgres")._value.get() >= 2)
        until(lambda: write_behind.gauges.lag_entries._value.get() > 0)
        until(lambda: write_behind.gauges.journal_batches._value.get() >= 11)  # it may have looked in the middle
        assert len([stream_id for stream_id in journal.ids() if stream_id > last]) == 11
    until(lambda: rows(database_url, "SELECT seq FROM partitions") == [(journal.seq,)])
    assert rows(database_url, "SELECT count(*), count(DISTINCT seq) FROM entries") == [(journal.seq, journal.seq)]


@pytest.mark.parametrize("place", [{"seq": 3}, {"epoch": 0}])
def test_a_store_behind_the_ledger_is_left_to_a_restore(
    journal: HandJournal, make: Make, database_url: str, place: dict[str, Any]
) -> None:
    """It has lost its tail: nothing is written from it, and nobody has to look before it can be rebuilt."""
    journal.fill(2)
    write_behind = make()
    write_behind.drain()
    before = contents(database_url)
    journal.client.hset(journal.keys.meta, mapping=place)
    for _ in range(4):
        assert write_behind.turn(block=False) is None
        time.sleep(0.01)
    assert contents(database_url) == before
    assert halted(database_url) is None


def test_small_batches_gather_into_one_transaction(
    journal: HandJournal, make: Make, running: Callable[[WriteBehind], threading.Thread], database_url: str
) -> None:
    """A trickle does not cost a transaction a batch; a group that is large enough does not wait."""
    write_behind = make(linger_ms=300)
    running(write_behind)
    for number in range(20):
        journal.put(receipt("shoe", 1, key=f"r{number}"))
        time.sleep(0.02)
    until(lambda: rows(database_url, "SELECT seq FROM partitions") == [(20,)])
    (transactions,) = rows(database_url, "SELECT count(DISTINCT xmin::text) FROM entries")[0]
    assert 1 <= transactions <= 6


def test_a_store_that_is_away_is_said_and_not_a_conflict(database_url: str) -> None:
    """Redis does not listen: the turn says so, and the ledger is not halted."""
    client = redis.Redis(port=1, retry=None, socket_connect_timeout=1)
    write_behind = WriteBehind(Journal(client, "p00"), LedgerWriter(database_url, "p00", holder="test"))
    with pytest.raises(StoreUnavailable):
        write_behind.turn(block=False)
    write_behind.close()
    assert halted(database_url) is None


def test_a_ledger_without_tables_is_waited_for(journal: HandJournal, make: Make, empty_database_url: str) -> None:
    """Not migrated yet: unavailable, worth another try."""
    journal.fill(1)
    with pytest.raises(LedgerUnavailable, match="partitions"):
        make(url=empty_database_url).turn(block=False)


def test_the_gauges_tell_how_far_behind_it_is(journal: HandJournal, make: Make) -> None:
    """Entries and seconds behind, the journal's length, who writes."""
    gauges: WorkerGauges = (write_behind := make(batches_max=1, margin_ms=600_000)).gauges
    journal.fill(3)
    write_behind.turn(block=False)
    assert gauges.lag_entries._value.get() == journal.seq - 2
    assert gauges.lag_seconds._value.get() > 0
    assert gauges.journal_batches._value.get() == 4
    assert gauges.writing._value.get() == 1
    write_behind.drain()
    write_behind._looked_at = 0
    write_behind.turn(block=False)
    assert (gauges.lag_entries._value.get(), gauges.lag_seconds._value.get()) == (0, 0)


def test_as_of_moves_on_while_nothing_happens(journal: HandJournal, make: Make, database_url: str) -> None:
    """An idle ledger is complete as of now, not as of its last entry; a ledger that lags does not claim so."""
    journal.fill(1)
    write_behind = make(lease_ms=30)
    write_behind.turn(block=False)
    assert rows(database_url, "SELECT as_of < '2026-01-02' FROM partitions") == [(True,)]
    time.sleep(0.05)
    write_behind.turn(block=False)
    assert rows(database_url, "SELECT clock_timestamp() - as_of < interval '5 s' FROM partitions") == [(True,)]


def test_a_hold_and_its_end_in_one_group_is_stored_as_ended(
    journal: HandJournal, make: Make, database_url: str
) -> None:
    """Made and committed before anybody wrote it down: the hold is written once, as it ended."""
    journal.put(receipt("shoe", 5), held(2, "shoe", 2), committed(2, "shoe", 2, reference="sale"))
    make().drain()
    assert rows(database_url, "SELECT created_seq, state, seq FROM holds") == [(2, "committed", 3)]
    assert rows(database_url, "SELECT hold, hold_seq FROM entries WHERE kind = 'commit'") == [(id_of(2), 2)]
