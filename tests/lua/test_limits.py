"""Big carts, big numbers, odd names, a million overdue holds: nothing that is allowed breaks a script."""

import os
from typing import Any

import pytest
import redis

from flashhold import Applied, Engine, HoldState, Line
from flashhold.domain import commands
from flashhold.engine.keys import partition_keys
from tests.engine.proof import counters_agree, lives, whole_journal
from tests.lua.watching import watched

OVERDUE = int(os.environ.get("FLASHHOLD_OVERDUE", "8000"))
"""Overdue holds of other SKUs; `FLASHHOLD_OVERDUE=1000000` takes some minutes and shows the same."""

BILLION = 1_000_000_000
KEYS = partition_keys("p00")


async def in_bulk(engine: Engine, some: list[Any]) -> list[Any]:
    """Outcomes of many commands, some thousands at a time."""
    return [outcome for at in range(0, len(some), 5_000) for outcome in await engine.submit_many(some[at : at + 5_000])]


async def let_pass(engine: Engine, url: str, ms: int) -> None:
    """By the store's own high-water mark."""
    with redis.Redis.from_url(url) as store:
        await engine.read_hold("hld_none")
        store.hset(KEYS.meta, "clock", (await engine.place()).clock_ms + ms)


@pytest.mark.parametrize("skus", [100, 5_000], ids=["the-same-100-skus", "5000-skus"])
async def test_a_batch_of_full_carts(engine: Engine, redis_url: str, skus: int) -> None:
    """256 carts of 100 lines are held and sold exactly; no call has more values than Lua can unpack."""
    await in_bulk(engine, [commands.Move(f"stock-{n}", "receipt", f"sku-{n}", 1_000) for n in range(skus)])
    carts = [
        commands.Hold(f"cart-{cart}", tuple(Line(f"sku-{(cart * 100 + n) % skus}", 1 + n % 3) for n in range(100)))
        for cart in range(256)
    ]
    with watched(redis_url) as touched:
        held = await engine.submit_many(carts)
    assert all(isinstance(outcome, Applied) for outcome in held)
    assert max(arguments for _, arguments in touched.calls) < 8_000
    sold = await engine.submit_many([commands.Commit(outcome.value.id) for outcome in held])
    assert {outcome.value.state for outcome in sold} == {HoldState.COMMITTED}
    written = whole_journal(redis_url)
    folded = await counters_agree(engine, written)
    assert len(lives(written)) == 256
    assert sum(units for (_, _, bucket), units in folded.items() if bucket == "committed") == 256 * 199


async def test_large_numbers_are_exact(engine: Engine, redis_url: str) -> None:
    """Counters far above 2^31 and 2^32 keep every unit, in replies, in the store and in the journal."""
    receipts = [commands.Move(f"stock-{n}", "receipt", "sand", BILLION) for n in range(120)]
    await in_bulk(engine, [*receipts, commands.Move("one-more", "receipt", "sand", 7)])
    hundred = tuple([Line("sand", BILLION)] * 100)
    held = (await engine.hold(key="cart", lines=hundred)).value
    stock = (await engine.read_stock("sand")).value
    assert (stock.available, stock.held, stock.on_hand) == (20 * BILLION + 7, 100 * BILLION, 120 * BILLION + 7)
    short = await engine.hold(key="cart-2", lines=tuple([Line("sand", BILLION)] * 21))
    assert short.detail["lines"][0] == {
        "sku": "sand", "pool": "default", "requested": 21 * BILLION, "sellable": 20 * BILLION + 7
    }  # fmt: skip
    await engine.amend(held.id, lines=[Line("sand", 1)])
    await engine.amend(held.id, lines=[*hundred[:99], Line("sand", BILLION - 1)])
    await engine.commit(held.id, lines=[*hundred[:98], Line("sand", 3)])
    stock = (await engine.read_stock("sand")).value
    assert (stock.available, stock.held, stock.committed) == (22 * BILLION + 4, 0, 98 * BILLION + 3)
    assert (await engine.move("damage", "sand", BILLION, key="damage")).value.shortfall is None
    policy = {"pools": {"default": {"safety_stock": BILLION, "oversell_allowance": BILLION}}}
    assert (await engine.set_policy("sand", policy, replace=True)).value.pools["default"] == (BILLION, BILLION)
    folded = await counters_agree(engine, whole_journal(redis_url))
    assert folded["sand", "default", "outside"] == -(120 * BILLION + 7)


async def test_a_shortfall_beyond_32_bits_is_exact(engine: Engine) -> None:
    """Four billion promised units burn, and the marks say how many are missing, to the unit."""
    for n in range(5):
        await engine.move("receipt", "sand", BILLION, key=f"stock-{n}")
    held = (await engine.hold(key="cart", lines=tuple([Line("sand", BILLION)] * 5))).value
    await engine.commit(held.id)
    for n in range(1, 5):
        burnt = await engine.move("damage", "sand", BILLION, key=f"fire-{n}")
        assert burnt.value.shortfall == n * BILLION
    assert (await engine.read_stock("sand")).value.sellable == -4 * BILLION


ODD_NAMES = (
    "{p00}", "{", "}", "a:b", "a b", "*", "?", "[x]", '"', "'", "\\", "\\0", "%s", "a\u0301", "\u00e1",
    "🧦" * 128, "ß" * 128, "default", "0", "-1", "nil", "true", "\u202eabc", "\ufeff", "\u2028", "日本語",
)  # fmt: skip


async def test_odd_names_stay_what_they_are(engine: Engine, redis_url: str) -> None:
    """Braces, colons, emoji, look-alikes: as SKU, pool, buyer, reference and reason, each is itself to the byte."""
    for number, name in enumerate(ODD_NAMES):
        await engine.move("receipt", name, number + 1, key=f"stock-{number}", pool=name, reference=name, reason=name)
        await engine.set_policy(name, {"max_per_buyer": 1, "class": name, "partition_key": None}, replace=False)
    for number, name in enumerate(ODD_NAMES):
        stock = (await engine.read_stock(name, pool=name)).value
        assert (stock.sku, stock.pool, stock.on_hand) == (name, name, number + 1)
        made = (await engine.hold(key=f"cart-{number}", lines=[Line(name, 1, name)], buyer=name)).value
        assert (made.buyer, made.lines[0].sku, made.lines[0].pool) == (name, name, name)
        refused = await engine.hold(key=f"again-{number}", lines=[Line(name, 1, name)], buyer=name)
        assert (refused.detail["sku"], refused.detail["already"]) == (name, 1)
        paid = (await engine.commit(made.id, reference=name)).value
        assert (paid.reference, paid.buyer) == (name, name)
    written = whole_journal(redis_url)
    receipts = [entry for entry in written if entry.kind == "receipt"]
    assert [(one.changes[0].sku, one.changes[0].pool, one.reference, one.reason) for one in receipts] == [
        (name, name, name, name) for name in ODD_NAMES
    ]
    await counters_agree(engine, written)


async def test_the_longest_that_is_allowed(engine: Engine, redis_url: str) -> None:
    """A key of 255 characters, 60 KB of metadata, names of 128 four-byte characters: stored and told exactly."""
    key, metadata = "k" * 255, '{"note":"' + "ü" * 30_000 + '"}'
    name = "🧦" * 128
    await engine.move("receipt", name, 500, key="stock")
    lines = tuple(Line(name, 1) for _ in range(100))
    made = (await engine.hold(key=key, lines=lines, buyer=name, metadata=metadata)).value
    read = (await engine.read_hold(made.id)).value
    assert read == made
    assert read.metadata == metadata
    entry = whole_journal(redis_url)[-1]
    assert (entry.idempotency_key, entry.details["metadata"]) == (key, metadata)


async def test_take_back_finds_its_sku_behind_many_others(engine: Engine, redis_url: str) -> None:
    """However many holds of other SKUs are overdue, freeing one of this SKU costs a handful of small calls."""
    others = 50
    stock = [commands.Move(f"stock-{n}", "receipt", f"sku-{n}", OVERDUE) for n in range(others)]
    await in_bulk(engine, [*stock, commands.Move("stock", "receipt", "last", 3)])
    late = [commands.Hold(f"late-{n}", (Line(f"sku-{n % others}", 1),), ttl_ms=1_000) for n in range(OVERDUE)]
    await in_bulk(engine, late)
    mine = [commands.Hold(f"mine-{n}", (Line("last", 1),), ttl_ms=1_001) for n in range(3)]
    await in_bulk(engine, mine)
    await let_pass(engine, redis_url, 60_000)
    with watched(redis_url) as touched:
        assert isinstance(await engine.hold(key="now", lines=[Line("last", 3)]), Applied)
    assert len(touched.calls) < 30
    assert sum(arguments for _, arguments in touched.calls) < 200
    with redis.Redis.from_url(redis_url) as store:
        named = sum(len(member) // 14 for member in store.zrange(partition_keys("p00").due, 0, -1))
    assert named == OVERDUE + 1, "others were expired on the way"


async def test_more_overdue_than_one_batch_may_take_back(engine: Engine, redis_url: str) -> None:
    """Two thousand five hundred overdue holds of the very SKU: one call still gets its answer, and the right one."""
    await engine.move("receipt", "hot", 2_500, key="stock")
    await engine.move("receipt", "sock", 9, key="socks")
    late = [commands.Hold(f"late-{n}", (Line("hot", 1),), ttl_ms=1_000) for n in range(2_500)]
    assert all(isinstance(outcome, Applied) for outcome in await in_bulk(engine, late))
    await let_pass(engine, redis_url, 60_000)
    first, second, read = await engine.submit_many(
        [
            commands.Hold("socks-first", (Line("sock", 1),)),
            commands.Hold("all", (Line("hot", 2_500),)),
            commands.ReadStock("hot"),
        ]
    )
    assert isinstance(first, Applied)
    assert not first.replayed, "what one batch decided is not the replay of what an earlier try of it did"
    assert isinstance(second, Applied)
    assert not second.replayed
    assert (read.value.held, read.value.available) == (2_500, 0)
    written = whole_journal(redis_url)
    assert sum(entry.kind == "expire" for entry in written) == 2_500
    await counters_agree(engine, written)
