"""The audit finds nothing where nothing is wrong, and each kind of drift where someone has planted it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from flashhold.domain.errors import LedgerUnavailable
from flashhold.domain.model import Line
from flashhold.ledger.connect import connect_sync
from flashhold.services.audit import audit
from flashhold.services.count_buyers import count_buyers
from tests.ledger.tables import rows, tamper
from tests.services.shop import Shop, open_shop


@pytest_asyncio.fixture
async def shop(one_redis_url: str, database_url: str) -> AsyncIterator[Shop]:
    """A shop that has traded."""
    async with open_shop(one_redis_url, database_url) as opened:
        await opened.trade()
        yield opened


async def test_a_busy_shop_is_clean(redis_url: str, database_url: str) -> None:
    """Every kind of entry, on every kind of server: store, fold, balances and chain agree."""
    async with open_shop(redis_url, database_url) as shop:
        await shop.trade()
        report = await shop.audit()
    assert report.differences == []
    assert report.clean and report.as_json()["clean"]
    kinds = {row[0] for row in rows(database_url, "SELECT DISTINCT kind FROM entries")}
    assert kinds == {
        "hold", "commit", "release", "expire", "extend", "amend", "receipt", "shipment", "return", "damage",
        "adjustment", "transfer", "cancel", "policy",
    }  # fmt: skip
    (count,) = rows(database_url, "SELECT count(*) FROM entries")[0]
    assert (report.entries, report.seq, report.pools) == (count, count, 3)


async def test_it_is_clean_while_selling_goes_on(shop: Shop) -> None:
    """The store is read at one instant and the ledger folded up to it, so traffic is no drift."""
    stop = asyncio.Event()

    async def sell() -> int:
        sold = 0
        while not stop.is_set():
            hold = await shop.hold(Line("sock 😀 {p00}", 1))
            await shop.engine.release(hold.id)
            await asyncio.to_thread(shop.writing.drain)
            sold += 1
        return sold

    selling = asyncio.create_task(sell())
    try:
        for _ in range(5):
            report = await audit(shop.engine, shop.database_url, patience_s=10)
            assert report.differences == []
    finally:
        stop.set()
    assert await selling > 5


async def test_a_tampered_counter_is_found(shop: Shop) -> None:
    """One unit of one pool that no entry explains, as an HINCRBY by hand would leave."""
    field = b"shoe\0default"
    counters = msgspec.msgpack.decode(shop.client.hget(shop.keys.stock, field))
    counters[1] += 1
    shop.client.hset(shop.keys.stock, field, msgspec.msgpack.encode(counters))
    report = await shop.audit()
    assert [(one.what, one.where) for one in report.differences] == [("store", "shoe, pool default, available")]
    assert int(report.differences[0].found) - int(report.differences[0].expected) == 1
    assert not report.clean


async def test_every_counter_and_rule_of_a_pool_is_compared(shop: Shop) -> None:
    """Held, committed, damaged, in transit, safety stock, oversell allowance: each drift is named."""
    field = b"shoe\0default"
    counters = msgspec.msgpack.decode(shop.client.hget(shop.keys.stock, field))
    names = ["available", "held", "committed", "damaged", "in_transit", "safety_stock", "oversell_allowance"]
    shop.client.hset(shop.keys.stock, field, msgspec.msgpack.encode([counters[0], *[n + 1 for n in counters[1:]]]))
    assert [where for _, where in await shop.found()] == [f"shoe, pool default, {name}" for name in names]


async def test_a_pool_that_the_store_has_lost_is_found(shop: Shop) -> None:
    """A record that is gone counts as zero, not as nothing to compare."""
    shop.client.hdel(shop.keys.stock, b"sock \xf0\x9f\x98\x80 {p00}\0eu")
    lost = [("store", f"sock 😀 {{p00}}, pool eu, {name}") for name in ("available", "held")]
    assert await shop.found() == [*lost, ("policy", "sock 😀 {p00}, pools")]


async def test_a_lost_deadline_is_found(shop: Shop) -> None:
    """A live hold that the store's deadlines have forgotten would never expire."""
    member = shop.client.zrange(shop.keys.due, 0, 0)[0]
    shop.client.zrem(shop.keys.due, member)
    found = await shop.audit()
    (one,) = found.differences
    assert one.where.endswith(", deadline") and one.found == "unnamed"


async def test_a_changed_balance_is_found(shop: Shop) -> None:
    """The balance of a pool that is not the sum of its postings."""
    await shop.audit()
    tamper(shop.database_url, "UPDATE balances SET damaged = damaged + 1 WHERE sku = 'shoe'")
    assert await shop.found() == [("balance", "shoe, pool default, damaged")]


async def test_a_missing_entry_is_found(shop: Shop) -> None:
    """An entry whose row is gone, though it was hashed; its postings are still there."""
    await shop.audit()
    tamper(shop.database_url, "DELETE FROM entries WHERE kind = 'receipt' AND seq = 2")
    assert await shop.found() == [("entry", "1/2"), ("rows", "entries")]


async def test_an_added_entry_is_found(shop: Shop) -> None:
    """An entry that nobody hashed, behind the end of all batches."""
    await shop.audit()
    tamper(
        shop.database_url,
        """INSERT INTO entries SELECT partition, epoch, seq + 1000, batch_seq, at_ms, kind, hold, hold_seq, buyer, 
                  reference, reason, idempotency_key, fingerprint, expires_at_ms, shortfall, details
             FROM entries WHERE seq = 1""",
    )
    assert await shop.found() == [("rows", "entries")]


async def test_a_missing_posting_is_found(shop: Shop) -> None:
    """Units that an entry moved and that the ledger no longer says: row, fold, balance and conservation all tell."""
    await shop.audit()
    tamper(shop.database_url, "DELETE FROM postings WHERE seq = (SELECT seq FROM entries WHERE kind = 'damage')")
    assert {what for what, _ in await shop.found()} == {"posting", "rows", "store", "balance"}


async def test_half_a_transfer_is_found(shop: Shop) -> None:
    """Each row of a transfer is allowed alone; that the two of them sum to zero is for the audit to say."""
    await shop.audit()
    tamper(
        shop.database_url,
        """UPDATE postings SET available = available + 1
            WHERE seq = (SELECT seq FROM entries WHERE kind = 'transfer') AND pool = 'eu'""",
    )
    (seq,) = rows(shop.database_url, "SELECT seq FROM entries WHERE kind = 'transfer'")[0]
    assert ("conservation", f"entry 1/{seq}, sock 😀 {{p00}}") in await shop.found()


async def test_a_changed_member_of_an_entry_is_found(shop: Shop) -> None:
    """A rewritten reason or key: the row is not what was hashed, and the member is named."""
    await shop.audit()
    tamper(shop.database_url, "UPDATE entries SET reason = 'theft' WHERE kind = 'adjustment'")
    (seq,) = rows(shop.database_url, "SELECT seq FROM entries WHERE kind = 'adjustment'")[0]
    assert await shop.found() == [("entry", f"1/{seq}, reason")]


async def test_a_flipped_byte_in_a_payload_is_found(shop: Shop) -> None:
    """One bit of what was hashed: the chain breaks at that batch."""
    await shop.audit()
    tamper(
        shop.database_url,
        """UPDATE batches SET payload = set_byte(payload, 20, get_byte(payload, 20) # 1) WHERE first_seq = 3""",
    )
    assert ("chain", "batch 1/3") in await shop.found()


async def test_a_missing_batch_is_found(shop: Shop) -> None:
    """A hole in the chain."""
    await shop.audit()
    tamper(shop.database_url, "DELETE FROM batches WHERE first_seq = 3")
    assert ("chain", "batch 1/4") in await shop.found()


async def test_a_rewritten_history_is_found(shop: Shop) -> None:
    """The last batch replaced together with its chain: consistent in itself, but not what the store remembers."""
    await shop.audit()
    tamper(shop.database_url, "UPDATE partitions SET chain = repeat('e', 40)")
    tamper(
        shop.database_url, "UPDATE batches SET chain = repeat('e', 40) WHERE first_seq = (SELECT seq FROM partitions)"
    )
    found = await audit(shop.engine, shop.database_url, patience_s=0.1)
    place = f"store at {found.epoch}/{found.seq}"
    assert [one.where for one in found.differences if one.what == "chain"] == [f"batch 1/{found.seq}", place]


@pytest.mark.parametrize("member", ["chain = repeat('e', 40)", "seq = seq + 1", "epoch = 2"])
async def test_a_cursor_that_is_not_at_the_end_is_found(shop: Shop, member: str) -> None:
    """The cursor claims another end than the batches have."""
    await shop.audit()
    tamper(shop.database_url, f"UPDATE partitions SET {member}")
    report = await audit(shop.engine, shop.database_url, patience_s=0.1)
    assert ("chain", "cursor") in [(one.what, one.where) for one in report.differences]


async def test_a_hold_that_does_not_stand_as_it_ended_is_found(shop: Shop) -> None:
    """A state, a deadline, a missing hold: the table of holds is compared with the entries."""
    await shop.audit()
    tamper(shop.database_url, "UPDATE holds SET state = 'held' WHERE state = 'released'")
    tamper(shop.database_url, "DELETE FROM holds WHERE state = 'expired'")
    seqs = rows(shop.database_url, "SELECT hold_seq FROM entries WHERE kind = 'release'")
    gone = rows(
        shop.database_url,
        """SELECT hold_seq FROM entries e WHERE kind = 'expire'
            AND NOT EXISTS (SELECT FROM holds WHERE created_seq = e.hold_seq)""",
    )
    assert sorted(await shop.found()) == sorted(("hold", f"made at {seq}") for (seq,) in seqs + gone)
    assert len(seqs + gone) == 2


@pytest.mark.parametrize(
    ("forgery", "kind"),
    [
        ("UPDATE entries SET kind = 'release' WHERE kind = 'expire' AND hold_seq IN "
         "(SELECT hold_seq FROM entries WHERE kind = 'commit')", "commit"),
        ("UPDATE entries SET kind = 'release' WHERE kind = 'amend'", "extend"),
        ("UPDATE entries SET at_ms = expires_at_ms - 1 WHERE kind = 'expire'", "expire"),
        ("UPDATE entries SET at_ms = expires_at_ms WHERE kind = 'release'", "release"),
        ("UPDATE entries SET details = NULL WHERE kind = 'commit' AND details IS NOT NULL", "commit"),
    ],
)  # fmt: skip
async def test_a_life_that_no_hold_can_have_is_found(shop: Shop, forgery: str, kind: str) -> None:
    """Ended twice, expired early, released late, taken again without a mark."""
    await shop.audit()
    tamper(shop.database_url, forgery)
    lives = [where for what, where in await shop.found() if what == "life"]
    seqs = {f"entry 1/{row[0]}" for row in rows(shop.database_url, f"SELECT seq FROM entries WHERE kind = '{kind}'")}
    assert seqs.intersection(lives)


async def test_a_ledger_that_does_not_catch_up_is_a_finding(shop: Shop) -> None:
    """No worker runs: the audit says how far the ledger is, and does not wait for ever."""
    await shop.audit()
    await shop.hold(Line("sock 😀 {p00}", 1))
    report = await audit(shop.engine, shop.database_url, patience_s=0.2)
    assert ("place", "ledger") in [(one.what, one.where) for one in report.differences]


async def test_a_store_behind_the_ledger_is_a_finding(shop: Shop) -> None:
    """Redis came back without its tail."""
    await shop.audit()
    behind = int(shop.client.hget(shop.keys.meta, "seq")) - 2
    shop.client.hset(shop.keys.meta, "seq", behind)
    assert ("place", "store") in [
        (one.what, one.where) for one in (await audit(shop.engine, shop.database_url, patience_s=0.2)).differences
    ]


async def test_without_a_ledger_there_is_nothing_to_prove(shop: Shop) -> None:
    """Nothing was ever written: that is no clean bill of health."""
    with pytest.raises(LedgerUnavailable, match="no worker"):
        await audit(shop.engine, shop.database_url, patience_s=0.1)


async def test_many_differences_are_counted_and_some_are_listed(shop: Shop) -> None:
    """A report stays readable whatever has happened."""
    await shop.engine.submit_many([])
    for number in range(120):
        await shop.engine.move("receipt", f"sku-{number}", 1, key=shop.key())
    await shop.audit()
    tamper(shop.database_url, "UPDATE balances SET available = available + 1 WHERE sku LIKE 'sku-%%'")
    report = await shop.audit()
    assert report.difference_count == 120 and len(report.differences) == 100


async def test_records_of_every_kind_of_memory_are_looked_for(shop: Shop) -> None:
    """A hold that lives, one that has ended, a remembered movement: each record that is gone is named."""
    await shop.audit()
    records: Any = shop.client.hgetall(shop.keys.holds)
    assert {value[0] for value in records.values()} == {0, 1, 2, 3, 8}
    for field, value in records.items():
        shop.client.hdel(shop.keys.holds, field)
        report = await shop.audit()
        assert {one.what for one in report.differences} <= {"record", "key"} and not report.clean, value
        shop.client.hset(shop.keys.holds, field, value)
    assert (await shop.audit()).clean


async def test_a_hold_that_the_ledger_does_not_know_is_found(shop: Shop) -> None:
    """Somebody has put back the record of another day: it would give units back that nobody has taken."""
    await shop.audit()
    records: Any = shop.client.hgetall(shop.keys.holds)
    value = next(value for value in records.values() if value[0] == 0)
    shop.client.hset(shop.keys.holds, b"A" * 14, value)
    (one,) = (await shop.audit()).differences
    assert (one.what, one.expected, one.found) == ("record", "no live hold", "one")


async def test_a_sweeper_that_would_come_too_late_is_found(shop: Shop) -> None:
    """The deadline index is whole, but nobody looks into it in time."""
    await shop.audit()
    numbers: Any = shop.client.zrange(shop.keys.wake, 0, -1)
    shop.client.zadd(shop.keys.wake, dict.fromkeys(numbers, 9e12))
    assert {one.found for one in (await shop.audit()).differences} == {"unwoken"}


async def test_a_buyers_share_that_somebody_changed_is_found(shop: Shop) -> None:
    """What counts against a limit is what the ledger says that the buyer has."""
    ledger = connect_sync(shop.database_url)
    shop.writing.drain()
    await count_buyers(shop.engine, ledger)
    ledger.dispose()
    assert (await shop.audit()).clean
    shares: Any = shop.client.hgetall(shop.keys.buyers)
    field, units = next(iter(shares.items()))
    shop.client.hincrby(shop.keys.buyers, field, 1)
    (one,) = (await shop.audit()).differences
    assert (one.what, one.expected, one.found) == ("share", units.decode(), str(int(units) + 1))


async def test_a_changed_rule_is_found(shop: Shop) -> None:
    """A limit that no policy entry has set."""
    await shop.audit()
    stored: Any = shop.client.hget(shop.keys.stock, b"shoe")
    rules = msgspec.msgpack.decode(stored)
    rules[2] = 99
    shop.client.hset(shop.keys.stock, b"shoe", msgspec.msgpack.encode(rules))
    assert await shop.found() == [("policy", "shoe, max_per_buyer")]


async def test_garbage_is_a_finding(shop: Shop) -> None:
    """Bytes where counters should be end no audit: they are what it is for."""
    await shop.audit()
    shop.client.hset(shop.keys.stock, b"shoe\0default", b"\x90")
    found = await shop.found()
    assert ("garbage", "shoe, pool default") in found
