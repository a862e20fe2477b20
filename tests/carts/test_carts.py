"""A cart over several partitions is held, sold and given back as one, whatever it meets."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from flashhold import Line
from flashhold.domain.idempotency import is_cart, is_part
from flashhold.domain.model import HoldLine, HoldState
from flashhold.domain.outcomes import Applied, Refused
from flashhold.domain.reasons import Reason
from tests.carts.malls import Mall, open_mall

CART = (Line("plum", 2), Line("apple", 1), Line("pear", 3), Line("fig", 1), Line("plum", 1, "eu"))


@pytest_asyncio.fixture
async def mall(one_redis_url: str) -> AsyncIterator[Mall]:
    async with open_mall(one_redis_url) as opened:
        await opened.stock(10)
        await opened.engines["p02"].move("receipt", "plum", 5, key="plum-eu", pool="eu")
        yield opened


async def test_a_cart_is_held_as_one(mall: Mall) -> None:
    """Lines in the order of the request, and the units of every SKU are held."""
    hold = await mall.held("key", *CART, buyer="ann", ttl_ms=60_000, metadata='{"gift":true}')
    assert is_cart(hold.id)
    assert not is_part(hold.id)
    assert hold.lines == tuple(HoldLine(line.sku, line.pool, line.quantity) for line in CART)
    assert (hold.buyer, hold.metadata, hold.state) == ("ann", '{"gift":true}', HoldState.HELD)
    assert hold.expires_at_ms - hold.created_at_ms == 60_000
    assert await mall.counters() == {"apple": (9, 1, 0), "pear": (7, 3, 0), "plum": (8, 2, 0), "fig": (9, 1, 0)}
    assert await mall.carts.read_hold(hold.id) == Applied(hold)
    again = await mall.hold("key", *CART, buyer="ann", ttl_ms=60_000, metadata='{"gift":true}')
    assert again == Applied(hold, replayed=True)
    other = await mall.hold("key", *CART[:4], buyer="ann", ttl_ms=60_000, metadata='{"gift":true}')
    assert isinstance(other, Refused)
    assert other.reason == Reason.IDEMPOTENCY_KEY_REUSED


async def test_a_cart_is_sold_as_one(mall: Mall) -> None:
    """Repeating the commit changes nothing, another one is refused."""
    hold = await mall.held("key", *CART)
    sold = await mall.commit(hold.id, reference="order 1", key="sell")
    assert isinstance(sold, Applied)
    assert sold.value.state == HoldState.COMMITTED
    assert [(line.committed, line.released) for line in sold.value.lines] == [(line.quantity, 0) for line in CART]
    assert await mall.counters() == {"apple": (9, 0, 1), "pear": (7, 0, 3), "plum": (8, 0, 2), "fig": (9, 0, 1)}
    assert await mall.commit(hold.id, reference="order 1", key="sell") == sold._replace(replayed=True)
    assert await mall.commit(hold.id, reference="order 1", lines=CART) == sold._replace(replayed=True)
    for other in ({"reference": "order 2"}, {"reference": "order 1", "lines": CART[:1]}, {"lines": (Line("fig", 9),)}):
        refused = await mall.commit(hold.id, **other)
        assert isinstance(refused, Refused)
        assert refused.reason == Reason.ALREADY_COMMITTED


@pytest.mark.parametrize(
    "sold", [(Line("apple", 1),), (Line("plum", 1, "eu"),), (Line("pear", 2), Line("plum", 1)), (Line("fig", 1),)]
)
async def test_some_of_a_cart_is_sold(mall: Mall, sold: tuple[Line, ...]) -> None:
    """What is not sold is given back, in every partition, the first hold's and a whole part's included."""
    hold = await mall.held("key", *CART)
    outcome = await mall.commit(hold.id, reference="order 1", lines=sold)
    assert isinstance(outcome, Applied)
    units = {(line.sku, line.pool): line.quantity for line in sold}
    for line in outcome.value.lines:
        assert line.committed == units.get((line.sku, line.pool), 0)
        assert line.released == line.quantity - line.committed
    assert outcome.value.reference == "order 1"
    for sku, (available, held, committed) in (await mall.counters()).items():
        assert (available + committed, held, committed) == (10, 0, units.get((sku, "default"), 0))
    assert await mall.commit(hold.id, reference="order 1", lines=sold) == outcome._replace(replayed=True)
    assert await mall.carts.read_hold(hold.id) == Applied(outcome.value)


async def test_more_than_a_cart_has_cannot_be_sold(mall: Mall) -> None:
    """The cart is as it was."""
    hold = await mall.held("key", *CART)
    refused = await mall.commit(hold.id, lines=(Line("plum", 3),))
    assert isinstance(refused, Refused)
    assert refused.reason == Reason.INVALID_REQUEST
    assert await mall.carts.read_hold(hold.id) == Applied(hold)


async def test_a_cart_is_given_back_as_one(mall: Mall) -> None:
    """Repeating the release changes nothing; a sale comes too late."""
    hold = await mall.held("key", *CART)
    released = await mall.release(hold.id, reason="changed mind")
    assert isinstance(released, Applied)
    assert (released.value.state, released.value.reason) == (HoldState.RELEASED, "changed mind")
    assert [line.released for line in released.value.lines] == [line.quantity for line in CART]
    assert all(counters == (10, 0, 0) for counters in (await mall.counters()).values())
    assert await mall.release(hold.id) == released._replace(replayed=True)
    late = await mall.commit(hold.id)
    assert isinstance(late, Refused)
    assert late.reason == Reason.HOLD_RELEASED
    assert await mall.hold("key", *CART) == Applied(hold, replayed=True)


@pytest.mark.parametrize("short", ["apple", "pear", "plum", "fig"])
async def test_a_short_cart_takes_nothing(mall: Mall, short: str) -> None:
    """Every short line is named, and the key keeps the refusal when there is stock again."""
    wanted = [Line(sku, 11 if sku in (short, "plum") else 1) for sku in ("apple", "pear", "plum", "fig")]
    refused = await mall.hold("key", *wanted)
    assert isinstance(refused, Refused)
    assert refused.reason == Reason.INSUFFICIENT_STOCK
    assert [line["sku"] for line in refused.detail["lines"]] == [line.sku for line in wanted if line.quantity == 11]
    assert all(counters == (10, 0, 0) for counters in (await mall.counters()).values())
    for partition, sku in (("p00", "apple"), ("p01", "pear"), ("p02", "plum"), ("p01", "fig")):
        await mall.engines[partition].move("receipt", sku, 50, key=f"more-{sku}")
    assert await mall.hold("key", *wanted) == refused._replace(replayed=True)
