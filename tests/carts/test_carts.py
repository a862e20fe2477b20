"""A cart over several partitions is held, sold and given back as one, whatever it meets."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio

from flashhold import Engine, Line
from flashhold.domain import commands
from flashhold.domain.commands import Command
from flashhold.domain.errors import NotDurable, StoreUnavailable
from flashhold.domain.idempotency import is_cart, is_part
from flashhold.domain.model import HoldLine, HoldState
from flashhold.domain.outcomes import Applied, Refused
from flashhold.domain.reasons import Reason
from flashhold.engine.carts import Carts
from tests.carts.dying import Fate, dying_carts
from tests.carts.malls import Mall, groups_of, open_mall

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


class _Late:
    """An engine that does something just before the next hold of a cart."""

    def __init__(self, engine: Engine, act: Callable[[], Awaitable[Any]]) -> None:
        self._engine = engine
        self._act: Callable[[], Awaitable[Any]] | None = act

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def submit(self, command: Command) -> Any:
        return asyncio.ensure_future(self._submit(command))

    async def _submit(self, command: Command) -> Any:
        if isinstance(command, commands.HoldPart) and self._act is not None:
            act, self._act = self._act, None
            await act()
        return await self._engine.submit(command)


def late(mall: Mall, partition: str, act: Callable[[], Awaitable[Any]]) -> Carts:
    """Carts for which something happens between the look at the SKUs and the hold in this partition."""
    engines: dict[str, Any] = {**mall.engines, partition: _Late(mall.engines[partition], act)}
    return Carts(engines)


async def test_what_is_gone_since_the_look_is_refused(mall: Mall) -> None:
    """The first hold is released with the refusal, which its key keeps; the parts that were made are given back."""

    async def sell_out() -> None:
        await mall.engines["p02"].move("adjustment", "plum", -9, key="gone", reason="count")

    refused = await mall.hold("key", *CART, carts=late(mall, "p02", sell_out))
    assert isinstance(refused, Refused)
    assert refused.reason == Reason.INSUFFICIENT_STOCK
    assert refused.detail == {"lines": [{"sku": "plum", "pool": "default", "requested": 2, "sellable": 1}]}
    await mall.engines["p02"].move("receipt", "plum", 50, key="again")
    assert await mall.hold("key", *CART) == refused._replace(replayed=True)
    assert all(held == 0 for _, held, _ in (await mall.counters()).values())


async def test_a_sku_that_has_moved_since_the_look_was_short(mall: Mall) -> None:
    """Nobody is sent after it for ever: where it was it had no unit, and that is the answer for good."""

    async def move_away() -> None:
        await mall.engines["p01"].move("adjustment", "fig", -10, key="none", reason="count")
        moved = await mall.engines["p01"].submit(commands.SetPolicy("fig", {}, False, None, "p02", 0))
        assert isinstance(moved, Applied), moved

    wanted = (Line("apple", 1), Line("fig", 2))
    refused = await mall.hold("key", *wanted, carts=late(mall, "p01", move_away))
    assert isinstance(refused, Refused)
    assert refused.reason == Reason.INSUFFICIENT_STOCK
    assert refused.detail == {"lines": [{"sku": "fig", "pool": "default", "requested": 2, "sellable": 0}]}
    assert await mall.hold("key", *wanted) == refused._replace(replayed=True)
    other = await mall.hold("other", *wanted)
    assert isinstance(other, Refused)
    assert other.reason == Reason.SKU_ELSEWHERE


async def test_a_cart_that_ends_during_its_parts_holds_nothing(mall: Mall) -> None:
    """Its deadline was faster than its last part: no unit stays held, and its key is told so for good."""

    async def expire() -> None:
        await mall.pass_time(2_000)

    expired = await mall.hold("late", *CART, ttl_ms=1_000, carts=late(mall, "p02", expire))
    # All parts were made: it was a hold, and is over.
    assert isinstance(expired, Applied)
    assert (await mall.counters())["plum"] == (10, 0, 0)
    gone = await mall.commit(expired.value.id)
    assert isinstance(gone, Refused)
    assert gone.reason == Reason.HOLD_EXPIRED
    assert await mall.hold("late", *CART, ttl_ms=1_000) == expired._replace(replayed=True)

    async def expire_short() -> None:
        await mall.pass_time(2_000)
        await mall.engines["p02"].move("adjustment", "plum", -9, key="gone", reason="count")

    refused = await mall.hold("never", *CART, ttl_ms=1_000, carts=late(mall, "p02", expire_short))
    assert isinstance(refused, Refused)
    assert refused.reason == Reason.HOLD_EXPIRED
    await mall.engines["p02"].move("receipt", "plum", 50, key="again")
    assert await mall.hold("never", *CART, ttl_ms=1_000) == refused._replace(replayed=True)
    assert all(held == 0 for _, held, _ in (await mall.counters()).values())


async def test_a_cart_may_be_released_where_memory_is_used_up(mall: Mall) -> None:
    """Selling and giving back goes on when nothing new can be held."""
    sold, dropped = await mall.held("sold", *CART), await mall.held("dropped", *CART)
    mall.client.config_set("maxmemory", "1")
    try:
        assert isinstance(await mall.commit(sold.id), Applied)
        assert isinstance(await mall.release(dropped.id), Applied)
        counters = await mall.counters()
    finally:
        mall.client.config_set("maxmemory", "0")
    assert counters == {"apple": (9, 0, 1), "pear": (7, 0, 3), "plum": (8, 0, 2), "fig": (9, 0, 1)}


async def test_nobody_waits_for_all_steps_of_a_slow_cart(mall: Mall) -> None:
    """He is told that there is no answer yet; the cart goes on, and is there when he asks again."""
    slow = dying_carts(mall.engines, Fate(None), lambda: asyncio.sleep(0.15), patience_s=0.3)
    command = commands.Hold("key", CART)
    began = asyncio.get_running_loop().time()
    with pytest.raises(StoreUnavailable, match="unknown"):
        await slow.submit(command, groups_of(CART))
    assert asyncio.get_running_loop().time() - began < 0.55
    await slow.drain()
    assert (await mall.counters())["plum"] == (8, 2, 0)
    again = await mall.carts.submit(command, groups_of(CART))
    assert isinstance(again, Applied)
    assert again.replayed


async def test_who_goes_away_does_not_stop_a_cart(mall: Mall) -> None:
    """A buyer whose connection ends has a hold nevertheless."""
    waiting = mall.carts.submit(commands.Hold("key", CART), groups_of(CART))
    await asyncio.sleep(0)
    waiting.cancel()
    await mall.carts.drain()
    assert (await mall.counters())["plum"] == (8, 2, 0)


async def test_a_cart_is_as_durable_as_any_of_its_skus_asks(one_redis_url: str) -> None:
    """What one policy asks for holds for the hold that decides, though its own partition has no such SKU, and no part
    follows a decision that is not safe yet."""
    asked: list[tuple[str, int]] = []
    away: set[str] = set()

    async def gate(partition: str, _: int, seq: int) -> None:
        asked.append((partition, seq))
        if partition in away:
            raise NotDurable

    async with open_mall(one_redis_url, ledger_gate=gate) as mall:
        await mall.stock(10)
        await mall.engines["p02"].set_policy("plum", {"durability": "ledger"}, replace=True)
        asked.clear()
        hold = await mall.held("key", *CART[:4])
        assert ("p00", hold.seq) in asked
        assert {partition for partition, _ in asked} == {"p00", "p02"}
        away.add("p00")
        with pytest.raises(NotDurable):
            await mall.release(hold.id)
        away.clear()
        other = await mall.held("other", *CART[:4])
        away.add("p00")
        with pytest.raises(NotDurable):
            await mall.commit(other.id)
        away.clear()
        counters = await mall.counters()
        assert (counters["apple"], counters["pear"], counters["plum"]) == ((9, 0, 1), (4, 6, 0), (6, 4, 0))
        asked.clear()
        sold = await mall.commit(other.id)
        assert isinstance(sold, Applied)
        assert ("p00", sold.value.seq) in asked
        assert (await mall.counters())["plum"] == (6, 2, 2)
        assert isinstance(await mall.release(hold.id), Applied)
        assert (await mall.counters())["plum"] == (8, 0, 2)
        asked.clear()
        await mall.held("cheap", Line("apple", 1), Line("pear", 1))
        assert not asked
