"""A store that was lost is rebuilt from the ledger: same holds, same answers, same counters, same deadlines."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio
import redis

from flashhold import Engine, EngineOptions
from flashhold.domain import commands
from flashhold.domain.model import Line
from flashhold.domain.outcomes import Applied, Refused
from flashhold.domain.idempotency import key_digest
from flashhold.engine.durability import Durability
from flashhold.engine.keys import partition_keys
from flashhold.http.responses import hold_body
from flashhold.services.recovery import restore_by_hand
from flashhold.services.restore import Restored
from tests.engine.crowd import Crowd
from tests.engine.duel import Duel
from tests.ledger.tables import rows
from tests.services.shop import Shop, open_shop

MEMORY = EngineOptions(durability=Durability.MEMORY)


@pytest_asyncio.fixture
async def shop(redis_url: str, database_url: str) -> AsyncIterator[Shop]:
    """A shop that has traded, all of it written down."""
    async with open_shop(redis_url, database_url) as opened:
        await opened.trade()
        opened.writing.drain()
        yield opened


def image(client: "redis.Redis") -> dict[str, Any]:
    """Everything that the partition holds, decoded as far as it must be equal after a restore."""
    keys = partition_keys("p00")
    holds: Any = client.hgetall(keys.holds)
    stock: Any = client.hgetall(keys.stock)
    unpacked = {name: msgspec.msgpack.decode(raw) for name, raw in stock.items()}
    numbers = {name: value[0] for name, value in unpacked.items() if b"\0" in name}
    due: Any = client.zrange(keys.due, 0, -1)
    name_of = {number.to_bytes(4, "big"): name for name, number in numbers.items()}
    return {
        "holds": {digest: known(msgspec.msgpack.decode(raw)) for digest, raw in holds.items()},
        "pools": {name: value[1:] for name, value in unpacked.items() if b"\0" in name},
        "skus": {name: value for name, value in unpacked.items() if b"\0" not in name},
        "due": sorted((name_of[member[:4]], member[4:]) for member in due),
        "buyers": client.hgetall(keys.buyers),
        "ended": client.lrange(keys.ended, 0, -1),
    }


REMEMBERED = 8


def known(record: list[Any]) -> list[Any]:
    """A record without the ttl that was asked for, which nothing depends on and no entry tells."""
    return record if record[0] == REMEMBERED else [*record[:4], *record[5:]]


def earliest(client: "redis.Redis") -> dict[bytes, float]:
    """What `wake` must say: the first deadline of every pool (number) that has some."""
    due: Any = client.zrange(partition_keys("p00").due, 0, -1)
    first: dict[bytes, float] = {}
    for member in due:
        first.setdefault(b"%d" % int.from_bytes(member[:4], "big"), float(int.from_bytes(member[4:10], "big")))
    return first


async def restored(shop: Shop) -> Restored:
    """Restored by hand, with a worker beside that writes the journal down."""
    stop = asyncio.Event()

    async def work() -> None:
        while not stop.is_set():
            await asyncio.to_thread(shop.writing.drain)
            await asyncio.sleep(0.01)

    working = asyncio.create_task(work())
    try:
        done = await asyncio.to_thread(restore_by_hand, shop.url, shop.database_url, MEMORY, leave=True)
    finally:
        stop.set()
        await working
    assert done.restored is not None
    return done.restored


async def test_what_is_restored_is_what_was_there(shop: Shop) -> None:
    """Key by key: records, counters, rules, deadlines, buyers' shares and what is to be forgotten when."""
    before, place = image(shop.client), await shop.engine.place()
    shop.client.flushall()
    done = await restored(shop)
    after = image(shop.client)
    for part in before:
        assert after[part] == before[part], part
    assert earliest(shop.client) == dict(shop.client.zrange(shop.keys.wake, 0, -1, withscores=True))
    assert done.place is not None
    assert (done.place.epoch, done.place.seq) == (2, place.seq + 1)
    assert (done.missing, done.dropped, done.holds_live) == (None, [], 2)
    assert (await shop.audit()).differences == []
    last = rows(shop.database_url, "SELECT epoch, seq, kind, reason FROM entries ORDER BY epoch DESC, seq DESC LIMIT 1")
    assert last == [(2, place.seq + 1, "restore", "by-hand")]


@pytest.mark.parametrize("seed", range(4))
async def test_a_crowd_finds_its_shop_again(one_redis_url: str, database_url: str, seed: int) -> None:
    """After all that a crowd can do: nothing is missing but answers that no entry tells of, and nothing is new."""
    async with open_shop(one_redis_url, database_url) as shop:
        duel = await Duel(shop.engine, one_redis_url).start()
        await Crowd(seed).live(duel, batches=100)
        duel.close()
        shop.writing.drain()
        before = image(shop.client)
        shop.client.flushall()
        assert (await restored(shop)).place is not None
        after = image(shop.client)
        report = await shop.audit()
    told = {row[0] for row in rows(database_url, "SELECT DISTINCT idempotency_key FROM entries")}
    digests = {key_digest(key).encode() for key in told if key is not None}
    untold = before["holds"].keys() - digests
    assert all(before["holds"][digest][0] == REMEMBERED for digest in untold)
    assert after["holds"] == {digest: raw for digest, raw in before["holds"].items() if digest in digests}
    for part in ("pools", "skus", "due", "buyers"):
        assert after[part] == before[part], part
    assert [item for item in before["ended"] if item[:14] in digests] == after["ended"]
    assert report.differences == []
