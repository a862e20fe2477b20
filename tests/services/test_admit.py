"""What a connection to Redis must pass before anything is decided over it."""

import asyncio

import psycopg
import pytest
import redis

from flashhold import Engine, EngineOptions
from flashhold.domain.errors import Emptied, Recovering, StoreUnavailable
from flashhold.engine.journal import Place
from flashhold.ledger.reader import Reader
from flashhold.services.readiness import STARTING, admit
from flashhold.services.recovery import Recovery
from tests.http.conftest import running_api

OPENED = STARTING._replace(closed=None, opened=True)
ROW = """INSERT INTO partitions (partition, epoch, seq, chain, stream_id, fence, lease_until, as_of)
         VALUES ('p00', 1, %s, 'aa', '0-1', 1, now(), now())
         ON CONFLICT (partition) DO UPDATE SET seq = excluded.seq"""


def ledger_stands_at(database_url: str, seq: int) -> None:
    """As if a worker had come as far as that."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(ROW, (seq,))


def everybody_reconnects(url: str) -> None:
    """Cut every connection to the store but our own."""
    with redis.Redis.from_url(url) as client:
        client.client_kill_filter(_type="normal", skipme=True)


async def test_nothing_is_decided_over_a_connection_before_the_stores_are_compared(
    one_redis_url: str, database_url: str
) -> None:
    """Behind it may be an older copy, of which this process has not seen enough to notice: the ledger has."""
    async with running_api(one_redis_url, database_url, readiness_refresh_ms=60_000) as api:
        sku = await api.stocked(5)
        body = {"lines": [{"sku": sku, "quantity": 1}]}
        ledger_stands_at(database_url, 50)
        assert (await api.post("/v1/holds", body, key="before")).status_code == 201, "nobody has looked yet"
        everybody_reconnects(one_redis_url)
        for number in range(10):
            answer = await api.post("/v1/holds", body, key=f"after-{number}")
            assert answer.status_code == 503
            await asyncio.sleep(0.05)
        assert answer.json()["code"] == "recovering"
        ledger_stands_at(database_url, 1)
        async with asyncio.timeout(5):
            while (await api.post("/v1/holds", body, key="at-last")).status_code != 201:  # noqa: ASYNC110  # the door has no event for it
                await asyncio.sleep(0.05)


async def test_the_worker_writes_over_no_such_connection(one_redis_url: str, database_url: str) -> None:
    """Its sweeps are writes too: the sweeper's connection is refused where the store is behind the ledger."""
    async with await Engine.connect(one_redis_url) as engine:
        await engine.install()
    with redis.Redis.from_url(one_redis_url) as client:
        recovery = Recovery(client, database_url, EngineOptions())

        async def ask(_: object) -> None:
            await asyncio.to_thread(recovery.admit)

        async with await Engine.connect(one_redis_url, options=EngineOptions(admit=ask)) as engine:
            await engine.sweep()
            ledger_stands_at(database_url, 50)
            everybody_reconnects(one_redis_url)
            await asyncio.sleep(0.3)
            with pytest.raises(Recovering):
                await engine.sweep()
        recovery.close()


@pytest.mark.parametrize("seq", [0, 49])
async def test_an_older_copy_is_not_admitted(database_url: str, seq: int) -> None:
    """Behind the ledger, empty or not: recovering, once the stores have agreed; before that nothing is decided."""
    reader = Reader(database_url)
    ledger_stands_at(database_url, 50)

    async def place() -> Place:
        if not seq:
            raise Emptied
        return Place("p00", 1, seq, "bb", 0)

    await admit("p00", place, reader, STARTING)
    with pytest.raises(Recovering):
        await admit("p00", place, reader, OPENED)
    await reader.close()


async def test_without_the_ledger_an_agreed_store_goes_on() -> None:
    """Holds do not depend on Postgres: where it is away, a store that has agreed with it is taken as it is."""
    reader = Reader("postgresql://nobody@127.0.0.1:1/nothing")

    async def place() -> Place:
        raise StoreUnavailable

    await admit("p00", place, reader, OPENED)
    await reader.close()
