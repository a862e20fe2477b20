"""A stopped partition goes on when what stopped it is gone, and not before."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flashhold.domain.errors import Misconfigured
from flashhold.engine.journal import Journal
from flashhold.ledger.writer import LedgerWriter
from flashhold.services.resume import Resumption, resume
from flashhold.services.write_behind import WriteBehind, WriteBehindOptions
from tests.ledger.journals import HandJournal, committed, receipt
from tests.ledger.tables import contents, rows

Repair = Callable[[], None]


class Stopped:
    """A journal whose batch behind the good ones cannot be written, and a write-behind that has stopped at it."""

    def __init__(self, journal: HandJournal, redis_url: str, database_url: str) -> None:
        self.journal, self.url, self.database_url = journal, redis_url, database_url
        self.journal.fill(3)
        self.good = self.journal.seq
        self.writing = WriteBehind(
            Journal(self.journal.client, "p00"),
            LedgerWriter(database_url, "p00", holder="worker"),
            options=WriteBehindOptions(margin_ms=0),
        )

    def stop(self) -> str:
        """Let the write-behind come to the bad batch; why it stopped."""
        for _ in range(20):
            self.writing.turn(block=False)
        [[why]] = rows(self.database_url, "SELECT halted FROM partitions")
        assert why
        return str(why)

    def resume(self, **how: Any) -> Resumption:
        writer = LedgerWriter(self.database_url, "p00", holder="operator")
        try:
            return resume(Journal(self.journal.client, "p00"), writer, **how)
        finally:
            writer.close()

    def put_back(self, stream_id: str, **right: Any) -> None:
        """Take the bad record out and append it again as it should be."""
        [(_, record)] = self.journal.client.xrange(self.journal.keys.journal, stream_id, stream_id)
        self.journal.client.xdel(self.journal.keys.journal, stream_id)
        fields = {**record, **{name.encode(): value for name, value in right.items()}}
        self.journal.client.xadd(self.journal.keys.journal, fields)

    def command(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """`flashhold resume` as an operator calls it."""
        environ = os.environ | {"FLASHHOLD_REDIS_URL": self.url, "FLASHHOLD_DATABASE_URL": self.database_url}
        command = [sys.executable, "-m", "flashhold", "resume", *words]
        return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)


@pytest.fixture
def stopped(journal: HandJournal, one_redis_url: str, database_url: str) -> Iterator[Stopped]:
    """Three good batches; the test adds the bad one."""
    made = Stopped(journal, one_redis_url, database_url)
    yield made
    made.writing.close()


def broken_chain(stopped: Stopped) -> Repair:
    stream_id = stopped.journal.put(receipt("hat", 3), chain="0" * 40)
    right = stopped.journal.chain
    return lambda: stopped.put_back(stream_id, chain=right)


def a_stranger_in_the_stream(stopped: Stopped) -> Repair:
    client, key = stopped.journal.client, stopped.journal.keys.journal
    stream_id: Any = client.xadd(key, {"hello": "world"})

    def repair() -> None:
        client.xdel(key, stream_id)
        stopped.journal.put(receipt("hat", 3))

    return repair


def another_history_in_the_store(stopped: Stopped) -> Repair:
    stopped.writing.drain()
    client, key = stopped.journal.client, stopped.journal.keys.meta
    client.hset(key, "chain", "f" * 40)

    def repair() -> None:
        client.hset(key, "chain", stopped.journal.chain)
        stopped.journal.put(receipt("hat", 3))

    return repair


def rows_that_the_ledger_refuses(stopped: Stopped) -> Repair:
    stream_id = stopped.journal.put(committed(stopped.good + 77, "shoe"))

    def repair() -> None:
        stopped.journal.client.xdel(stopped.journal.keys.journal, stream_id)
        stopped.journal.seq, stopped.journal.chain = _place(stopped.database_url)
        stopped.journal.put(receipt("hat", 3))

    return repair


def _place(database_url: str) -> tuple[int, str]:
    [place] = rows(database_url, "SELECT seq, chain FROM partitions")
    return place[0], place[1]


@pytest.mark.parametrize(
    "cause", [broken_chain, a_stranger_in_the_stream, another_history_in_the_store, rows_that_the_ledger_refuses]
)
def test_it_goes_on_when_the_cause_is_gone_and_not_before(stopped: Stopped, cause: Callable[[Stopped], Repair]) -> None:
    """While it is there nothing is changed, and it is said what it is; afterwards the write-behind loses nothing."""
    repair = cause(stopped)
    why = stopped.stop()
    before = contents(stopped.database_url)
    refused = stopped.resume()
    assert (refused.halted, refused.resumed, refused.seq) == (why, False, stopped.good)
    assert refused.cause
    assert contents(stopped.database_url) == before
    repair()
    looked = stopped.resume(look_only=True)
    assert (looked.cause, looked.resumed) == (None, False)
    assert contents(stopped.database_url) == before
    resumed = stopped.resume()
    assert (resumed.cause, resumed.resumed, resumed.halted) == (None, True, why)
    assert resumed.entries == 1
    assert stopped.writing.drain().entries == 1
    assert rows(stopped.database_url, "SELECT max(seq), count(*) FROM entries") == [(stopped.good + 1,) * 2]


def test_what_is_far_behind_the_cause_is_looked_at_too(stopped: Stopped) -> None:
    """A second lie, hundreds of batches on, is found before the partition goes on, not by stopping again."""
    stream_id = stopped.journal.put(receipt("hat", 3), chain="0" * 40)
    right = stopped.journal.chain
    stopped.stop()
    stopped.journal.client.delete(stopped.journal.keys.journal)
    stopped.journal.seq, stopped.journal.chain = _place(stopped.database_url)
    stopped.journal.put(receipt("hat", 3))
    assert stopped.journal.chain == right, stream_id
    for number in range(200):
        stopped.journal.put(receipt("cap", 1, key=f"cap {number}"))
    stopped.journal.put(receipt("cap", 1), at=5)
    refused = stopped.resume()
    assert refused.cause is not None and "breaks the chain" in refused.cause
    assert not refused.resumed


def test_only_what_was_looked_at_goes_on(stopped: Stopped, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped for another reason since it was looked at: it stays stopped."""
    repair = broken_chain(stopped)
    stopped.stop()
    repair()
    looked = LedgerWriter.try_out

    def meanwhile(writer: LedgerWriter, into: Any) -> None:
        looked(writer, into)
        rows(stopped.database_url, "UPDATE partitions SET halted = 'another fork' RETURNING 1")

    monkeypatch.setattr(LedgerWriter, "try_out", meanwhile)
    refused = stopped.resume()
    assert (refused.resumed, bool(refused.cause)) == (False, True)
    assert rows(stopped.database_url, "SELECT halted FROM partitions") == [("another fork",)]


def test_a_partition_that_is_not_stopped_is_left_alone(stopped: Stopped) -> None:
    """Nothing to do is no finding; a partition that is not there is one."""
    stopped.writing.drain()
    found = stopped.resume()
    assert (found.halted, found.cause, found.resumed) == (None, None, False)
    writer = LedgerWriter(stopped.database_url, "p99", holder="operator")
    with pytest.raises(Misconfigured, match="p99"):
        resume(Journal(stopped.journal.client, "p99"), writer)
    writer.close()


def test_an_empty_store_has_to_be_rebuilt_first(stopped: Stopped) -> None:
    """Without state in Redis there is nothing to go on with."""
    broken_chain(stopped)
    stopped.stop()
    stopped.journal.client.flushall()
    refused = stopped.resume()
    assert refused.cause is not None and "rebuilt from the ledger" in refused.cause


def test_the_command_says_why_and_how_it_ended(stopped: Stopped) -> None:
    """Status 1 and the cause while it is there; 0 with `--look`, when it goes on, and when nothing was wrong."""
    repair = broken_chain(stopped)
    why = stopped.stop()
    said = stopped.command("p00")
    assert said.returncode == 1
    assert f"stopped: {why}" in said.stdout
    assert "cannot go on" in said.stdout
    repair()
    said = stopped.command("p00", "--look", "--json")
    assert (said.returncode, json.loads(said.stdout)["resumed"]) == (0, False)
    said = stopped.command("p00", "--json")
    assert said.returncode == 0
    assert json.loads(said.stdout) == {
        "partition": "p00", "epoch": 1, "seq": stopped.good, "halted": why, "cause": None, "batches": 1, "entries": 1,
        "resumed": True,
    }  # fmt: skip
    said = stopped.command("p00")
    assert (said.returncode, "not stopped" in said.stdout) == (0, True)
    assert stopped.command("p99").returncode == 1
    assert stopped.command().returncode == 2
