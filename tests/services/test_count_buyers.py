"""A limit that comes late knows what was sold before it."""

import pytest
import redis

from flashhold import Applied, Engine, Line, Reason, Refused
from flashhold.engine.journal import Journal
from flashhold.ledger.connect import connect_sync
from flashhold.ledger.writer import LedgerWriter
from flashhold.services import count_buyers
from flashhold.services.write_behind import WriteBehind


@pytest.fixture
def write(redis_url: str, database_url: str):
    """Brings the ledger up to where the store is."""

    def write_all() -> None:
        client = redis.Redis.from_url(redis_url)
        behind = WriteBehind(Journal(client, "p00"), LedgerWriter(database_url, "p00", holder="test"))
        behind.drain()
        behind.close()
        client.close()

    return write_all


async def _held(engine: Engine, buyer: str, quantity: int, key: str) -> str:
    outcome = await engine.hold(key=key, lines=[Line("shoe", quantity)], buyer=buyer)
    assert isinstance(outcome, Applied)
    return outcome.value.id


async def test_a_late_limit_counts_what_was_before(engine: Engine, database_url: str, write, monkeypatch) -> None:
    """Held, committed, shipped and given-back units of before count like those of after, each once."""
    monkeypatch.setattr(count_buyers, "PART_BUYERS_MAX", 2)
    ledger = connect_sync(database_url)
    await engine.move("receipt", "shoe", 100, key="receipt")
    await _held(engine, "amy", 2, "amy")
    sold = await _held(engine, "bob", 3, "bob")
    await engine.commit(sold)
    await engine.move("shipment", "shoe", 3, key="shipment")
    await engine.move("return", "shoe", 1, key="return", hold=sold)
    left = await _held(engine, "cid", 3, "cid")
    await engine.release(left)
    late = await _held(engine, "dan", 3, "dan")
    policy = await engine.set_policy("shoe", {"max_per_buyer": 3}, replace=False)
    assert isinstance(policy, Applied) and policy.value.counted == 1
    await engine.release(late)
    write()

    assert await count_buyers.count_buyers(engine, ledger) == 1
    write()
    assert await count_buyers.count_buyers(engine, ledger) == 0

    for buyer, already in {"amy": 2, "bob": 2, "cid": 0, "dan": 0}.items():
        refused = await engine.hold(key=f"{buyer} too many", lines=[Line("shoe", 4 - already)], buyer=buyer)
        assert isinstance(refused, Refused) and refused.reason is Reason.PURCHASE_LIMIT_EXCEEDED
        assert refused.detail["already"] == already
        await _held(engine, buyer, 3 - already, f"{buyer} again")
    ledger.dispose()


async def test_a_new_sku_has_no_past(engine: Engine) -> None:
    """Nothing was ever promised, so nothing has to be added."""
    await engine.move("receipt", "shoe", 100, key="receipt")
    policy = await engine.set_policy("shoe", {"max_per_buyer": 3}, replace=False)
    assert isinstance(policy, Applied) and policy.value.counted == -1
