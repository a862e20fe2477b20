"""What the worker does for carts whose first hold or whose parts are not where they were."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from flashhold import Line
from flashhold.domain import carts, commands
from flashhold.domain.carts import Cart, Part, first_digest, parts_of
from flashhold.domain.idempotency import hold_id, parse_hold_id
from flashhold.domain.model import Hold, HoldState
from flashhold.domain.outcomes import Applied, Refused
from flashhold.domain.reasons import Reason
from flashhold.engine.keys import partition_keys
from flashhold.services.carts import CartFollower
from tests.carts.malls import Mall, groups_of, open_mall
from tests.carts.test_dying import settle

CART = (Line("apple", 1), Line("pear", 3), Line("plum", 2))
UNITS = {"apple": (9, 1, 0), "pear": (7, 3, 0), "plum": (8, 2, 0), "fig": (10, 0, 0)}
NOTHING = dict.fromkeys(UNITS, (10, 0, 0))


@pytest_asyncio.fixture
async def mall(one_redis_url: str, database_url: str) -> AsyncIterator[Mall]:
    async with open_mall(one_redis_url, database_url) as opened:
        await opened.stock(10)
        yield opened


def parts(mall: Mall, hold: Hold) -> list[Part]:
    return parts_of(hold.id, Cart(tuple((p, line) for p, some in groups_of(CART).items() for line in some), None))


async def test_a_cart_that_lives_is_let_alone(mall: Mall) -> None:
    """However often the worker looks; and one that has just ended is left to its own process for a while."""
    held = await mall.held("key", *CART)
    await settle(mall)
    assert await mall.counters() == UNITS
    await mall.engines["p00"].release(held.id)
    mall.write_down()
    assert mall.database_url is not None
    patient = CartFollower(mall.engines, mall.database_url, grace_ms=60_000)
    assert await patient.round() == 0
    patient.close()
    assert await mall.counters() == UNITS | {"apple": (10, 0, 0)}
    await settle(mall)
    assert await mall.counters() == NOTHING


async def test_a_decision_that_the_ledger_has_not_yet_is_waited_for(mall: Mall) -> None:
    """A store can still lose it, and parts that had followed it would be sold for nobody."""
    held = await mall.held("key", *CART, ttl_ms=1_000)
    mall.write_down()
    await mall.engines["p00"].commit(held.id)
    for one in mall.writing[1:]:
        one.drain()
    assert mall.database_url is not None
    follower = CartFollower(mall.engines, mall.database_url, grace_ms=0)
    assert await follower.round() == 0
    assert await mall.counters() == UNITS | {"apple": (9, 0, 1)}
    mall.write_down()
    assert await follower.round() == 1
    assert await mall.counters() == {"apple": (9, 0, 1), "pear": (7, 0, 3), "plum": (8, 0, 2), "fig": (10, 0, 0)}
    follower.close()


async def test_a_part_of_a_cart_that_nobody_knows_is_given_back(mall: Mall) -> None:
    """Its first hold was lost with its store, before the ledger had it."""
    held = await mall.held("key", *CART)
    mall.write_down()
    lost = hold_id("p00", first_digest("lost"), 999)
    part = parts(mall, held._replace(id=lost))[0]
    made = await mall.engines["p01"].submit(
        commands.HoldPart(part.key, part.digest, part.key, part.lines, carts.part_text(lost), None, None, True)
    )
    assert isinstance(made, Applied)
    assert (await mall.counters())["pear"] == (4, 6, 0)
    await settle(mall)
    assert await mall.counters() == UNITS
    gone = await mall.engines["p01"].read_hold(part.id)
    assert isinstance(gone, Applied)
    assert (gone.value.state, gone.value.reason) == (HoldState.RELEASED, "cart-lost")


async def test_a_part_of_a_cart_that_is_forgotten_follows_the_ledger(mall: Mall) -> None:
    """A worker that was away for longer than keys are remembered."""
    held = await mall.held("key", *CART)
    reference = carts.commit_text("order", (1, 0, 2))
    await mall.engines["p00"].commit(held.id, reference=reference)
    mall.write_down()
    parsed = parse_hold_id(held.id)
    assert parsed is not None
    mall.client.hdel(partition_keys("p00").holds, parsed[1])
    await settle(mall)
    assert await mall.counters() == {"apple": (9, 0, 1), "pear": (10, 0, 0), "plum": (8, 0, 2), "fig": (10, 0, 0)}


async def test_keys_of_a_cart_are_forgotten_and_used_again(mall: Mall) -> None:
    """Nothing of an ended cart stays behind, and its key makes another one with other parts."""
    first = await mall.held("key", *CART)
    await mall.commit(first.id)
    short = await mall.hold("short", Line("apple", 99), Line("pear", 1))
    assert isinstance(short, Refused)
    for _ in range(4):
        await mall.pass_time(100_000_000)
        for engine in mall.engines.values():
            await engine.sweep()
    for name in mall.engines:
        keys = partition_keys(name)
        answers_of_receipts = 0
        assert mall.client.hlen(keys.holds) == answers_of_receipts, name
        assert mall.client.zcard(keys.due) == 0
    again = await mall.held("key", *CART)
    assert again.id != first.id
    assert await mall.counters() == {"apple": (8, 1, 1), "pear": (4, 3, 3), "plum": (6, 2, 2), "fig": (10, 0, 0)}
    assert await mall.differences() == []


@pytest.mark.parametrize("lost", ["p00", "p01", "p02"])
async def test_a_partition_of_carts_is_rebuilt(mall: Mall, lost: str) -> None:
    """Every cart is as it was: live ones are sold, ended ones answer as before, keys are remembered."""
    live = await mall.held("live", *CART, buyer="ann", metadata='{"a":1}')
    sold = await mall.held("sold", *CART)
    await mall.commit(sold.id, reference="order", lines=CART[1:])
    dropped = await mall.held("dropped", *CART)
    await mall.release(dropped.id, reason="no")
    before = await mall.counters()
    seen = [await mall.carts.read_hold(one.id) for one in (live, sold, dropped)]
    mall.write_down()
    mall.client.delete(*partition_keys(lost))
    await mall.rebuild(lost)
    assert await mall.counters() == before
    for was, one in zip(seen, (live, sold, dropped), strict=True):
        now = await mall.carts.read_hold(one.id)
        assert isinstance(was, Applied)
        assert isinstance(now, Applied)
        assert now.value == was.value
    for key, hold in (("sold", sold), ("dropped", dropped)):
        assert await mall.hold(key, *CART) == Applied(hold, replayed=True)
    again = await mall.hold("live", *CART, buyer="ann", metadata='{"a":1}')
    assert again == Applied(live, replayed=True)
    reused = await mall.hold("live", *CART)
    assert isinstance(reused, Refused)
    assert reused.reason == Reason.IDEMPOTENCY_KEY_REUSED
    assert isinstance(await mall.commit(live.id, reference="late"), Applied)
    await settle(mall)
    assert await mall.differences() == []
