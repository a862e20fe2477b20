"""The worker as a process: it prepares, writes, sweeps, and stops cleanly."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator

import psycopg
import pytest

from flashhold.domain.model import Line
from tests.conftest import free_port
from tests.ledger.tables import rows
from tests.services.shop import Shop, open_shop

Running = subprocess.Popen[bytes]


class Worker:
    """A `flashhold worker` on two stores."""

    def __init__(self, redis_url: str, database_url: str) -> None:
        self.port = free_port()
        urls = {"FLASHHOLD_REDIS_URL": redis_url, "FLASHHOLD_DATABASE_URL": database_url}
        extra = {"FLASHHOLD_WORKER_METRICS_PORT": str(self.port), "FLASHHOLD_HOST": "127.0.0.1"}
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "flashhold", "worker"], env={**os.environ, **urls, **extra}
        )

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)

    def figures(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
            text: str = answer.read().decode()
            return text


@pytest.fixture
def workers() -> Iterator[list[Worker]]:
    """Workers that the test starts; none outlives it."""
    started: list[Worker] = []
    yield started
    for worker in started:
        if worker.process.poll() is None:
            worker.process.kill()
            worker.process.wait()


def until_written(database_url: str, seq: int, seconds: float = 30) -> None:
    """Wait for the ledger to come to a seq; it may not even have tables yet."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if rows(database_url, "SELECT max(seq) FROM partitions") == [(seq,)]:
                return
        except psycopg.errors.UndefinedTable:
            pass
        time.sleep(0.05)
    raise AssertionError(f"the ledger did not come to {seq}")


async def trade(shop: Shop, count: int) -> int:
    """Some holds that nobody comes back for; the seq of the last entry once they have expired."""
    await shop.engine.move("receipt", "shoe", 100, key=shop.key())
    for _ in range(count):
        await shop.hold(Line("shoe", 1), ttl_ms=50)
    return (await shop.engine.place()).seq + count


async def test_a_worker_from_nothing_to_a_clean_stop(
    redis_url: str, empty_database_url: str, workers: list[Worker]
) -> None:
    """On a database without tables: it migrates, writes what is there, expires what is overdue, and ends with 0."""
    async with open_shop(redis_url, empty_database_url) as shop:
        seq = await trade(shop, 20)
        workers.append(worker := Worker(redis_url, empty_database_url))
        until_written(empty_database_url, seq)
        assert rows(empty_database_url, "SELECT state, count(*) FROM holds GROUP BY 1") == [("expired", 20)]
        figures = worker.figures()
        assert "flashhold_ledger_writing 1.0" in figures and f"flashhold_ledger_entries_total {seq}.0" in figures
        assert "flashhold_sweep_expired_total 20.0" in figures
        assert worker.stop() == 0
        assert rows(empty_database_url, "SELECT holder, lease_until = '-infinity' FROM partitions") == [(None, True)]


async def test_two_workers_and_the_writing_one_is_killed(
    one_redis_url: str, database_url: str, workers: list[Worker]
) -> None:
    """Kill -9 of the one that writes: the stand-by takes over within its lease, nothing twice, nothing lost."""
    async with open_shop(one_redis_url, database_url) as shop:
        workers += [Worker(one_redis_url, database_url) for _ in range(2)]
        until_written(database_url, await trade(shop, 10))
        (holder,) = rows(database_url, "SELECT holder FROM partitions")[0]
        writing, standing_by = sorted(workers, key=lambda one: f"/{one.process.pid}/" not in holder)
        assert f"/{writing.process.pid}/" in holder
        writing.stop(signal.SIGKILL)
        seq = await trade(shop, 10)
        until_written(database_url, seq, seconds=40)
        assert rows(database_url, "SELECT count(*), count(DISTINCT seq) FROM entries") == [(seq, seq)]
        assert standing_by.stop() == 0
        assert (await shop.audit()).clean
