"""A store that was lost is rebuilt from the ledger: same holds, same answers, same counters, same deadlines."""

import asyncio
import struct
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import msgspec
import pytest
import pytest_asyncio
import redis

from flashhold import EngineOptions
from flashhold.domain.errors import LedgerConflict, Recovering
from flashhold.domain.idempotency import key_digest
from flashhold.domain.model import Hold, Line
from flashhold.domain.outcomes import Applied, Refused
from flashhold.engine.durability import Durability
from flashhold.engine.journal import Journal
from flashhold.engine.keys import partition_keys
from flashhold.engine.revive import Reviver
from flashhold.ledger.connect import connect_sync
from flashhold.ledger.reader import Reader
from flashhold.services.recovery import Look, Recovery, restore_by_hand
from flashhold.services.restore import Finding, Missing, Overtaken, Restore, Restored, Why, examine
from tests.engine.crowd import Crowd
from tests.engine.duel import Duel
from tests.ledger.tables import rows, tamper
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
        "holds": {digest: known(raw) for digest, raw in holds.items()},
        "pools": {name: value[1:] for name, value in unpacked.items() if b"\0" in name},
        "skus": {name: value for name, value in unpacked.items() if b"\0" not in name},
        "due": sorted(
            (name_of[member[:4]], member[4:10], member[at : at + 14])
            for member in due
            for at in range(10, len(member), 14)
            if is_live_until(holds.get(member[at : at + 14], b""), member[4:10])
        ),
        "buyers": client.hgetall(keys.buyers),
        "ended": client.lrange(keys.ended, 0, -1),
    }


def is_live_until(record: bytes, deadline: bytes) -> bool:
    """Whether a name in the deadline index is meant: what has ended, or lives on, may still be named with others."""
    return record[:1] == b"\0" and record[8:14] == deadline


REMEMBERED = 8


def known(raw: bytes) -> list[Any]:
    """A record, laid out as lua/include/records.lua says."""
    decode = msgspec.msgpack.decode
    if raw[0] == REMEMBERED:
        return [REMEMBERED, *decode(b"\x93" + raw[1:])]
    head = struct.unpack_from(">BB6s6sH6sH", raw)
    buyer_to = 24 + head[6]
    lines_to = buyer_to + head[4]
    return [head, raw[24:buyer_to], decode(raw[buyer_to:lines_to]), decode(b"\x97" + raw[lines_to:])]


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


class Killed(BaseException):
    """As kill -9: nothing of the restorer goes on."""


def restore_of(shop: Shop, **more: Any) -> Restore:
    """A restorer whose journal is written down by the shop's own write-behind."""
    options = {"level": "disk", "silence_ms": 100, **more}
    return Restore(shop.client, shop.database_url, MEMORY, write_on=lambda: shop.writing.turn(block=False), **options)


def look(shop: Shop) -> Finding:
    """Where both stores stand."""
    ledger = connect_sync(shop.database_url)
    try:
        return examine(Journal(shop.client, "p00"), ledger, "p00")
    finally:
        ledger.dispose()


async def test_killed_before_any_step_it_stays_closed_and_the_next_one_ends_it(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever of it was done: nothing is decided, nothing is left over, and no epoch begins twice."""
    before = image(shop.client)
    real = Reviver._run
    steps: list[str] = []
    fatal = 0

    def run(reviver: Reviver, step: str, calls: Any) -> Any:
        if step == "beat":
            return real(reviver, step, calls)
        if len(steps) == fatal:
            raise Killed(step)
        steps.append(step)
        return real(reviver, step, calls)

    monkeypatch.setattr(Reviver, "_run", run)
    killed = 0
    while True:
        shop.client.flushall()
        steps.clear()
        try:
            await asyncio.to_thread(restore_of(shop).run, look(shop))
            break
        except Killed:
            killed += 1
            fatal += 1
        with pytest.raises(Recovering):
            await shop.engine.read_stock("shoe")
        monkeypatch.setattr(Reviver, "_run", real)
        await asyncio.sleep(0.11)  # until nobody takes the dead one for alive any more
        assert (await asyncio.to_thread(restore_of(shop).run, look(shop))).place is not None
        after = image(shop.client)
        assert after == before, steps
        monkeypatch.setattr(Reviver, "_run", run)
    assert killed == fatal == len(steps) > 10
    assert {"close", "clear", "fill", "seal", "open"} <= set(steps)
    places = rows(shop.database_url, "SELECT epoch, seq FROM entries WHERE kind = 'restore' ORDER BY seq")
    assert len({epoch for epoch, _ in places}) == len(places) > killed
    assert (await shop.audit()).differences == []


async def test_two_at_once_end_as_one(shop: Shop) -> None:
    """One restores, the other finds it busy or done; there is one new epoch."""
    before = image(shop.client)
    shop.client.flushall()
    finding = look(shop)
    done = await asyncio.gather(*(asyncio.to_thread(restore_of(shop, silence_ms=3_000).run, finding) for _ in range(3)))
    assert [one.place is not None for one in done].count(True) == 1
    # Nor does one who comes late close what has been rebuilt since he looked.
    assert (await asyncio.to_thread(restore_of(shop).run, finding)).place is None
    assert image(shop.client) == before
    assert rows(shop.database_url, "SELECT count(*), max(epoch) FROM entries WHERE kind = 'restore'") == [(1, 2)]


@pytest.mark.parametrize("other_ends", [True, False])
async def test_one_that_was_overtaken_writes_nothing_more(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, other_ends: bool
) -> None:
    """Stopped in the middle for longer than the others' patience, then continued: the store has moved on without it."""
    real = Reviver._fill
    other = Reviver(shop.client, MEMORY, silence_ms=100)
    stopped: list[Reviver] = []

    def fill(reviver: Reviver, kind: str, given: Any) -> list[int]:
        if kind == "holds" and not stopped:
            stopped.append(reviver)
            monkeypatch.setattr(Reviver, "beat", lambda _: None)
            time.sleep(0.3)
            if other_ends:
                restore_of(shop).run(finding)
            else:
                other.close(None)
                other.clear()
        return real(reviver, kind, given)

    before = image(shop.client)
    shop.client.flushall()
    finding = look(shop)
    monkeypatch.setattr(Reviver, "_fill", fill)
    with pytest.raises(Overtaken):
        await asyncio.to_thread(restore_of(shop).run, finding)
    if not other_ends:
        assert image(shop.client)["holds"] == {}
        await asyncio.sleep(0.11)
        await asyncio.to_thread(restore_of(shop).run, finding)
    assert image(shop.client) == before
    assert (await shop.audit()).differences == []


async def test_what_was_shown_and_is_in_neither_store_is_listed(shop: Shop) -> None:
    """Two holds that nobody had written down when the store was emptied: by seq, in the report and in the ledger."""
    place = await shop.engine.place()
    await shop.hold(Line("shoe", 1), buyer="ann")
    await shop.hold(Line("shoe", 1), buyer="bob")
    shop.client.flushall()
    done = await asyncio.to_thread(restore_of(shop).run, look(shop), seen=(1, place.seq + 2))
    assert done.missing == Missing(1, place.seq + 1, place.seq + 2)
    told = rows(shop.database_url, "SELECT details FROM entries WHERE kind = 'restore'")[0][0]
    assert told["missing"] == {"epoch": 1, "first_seq": place.seq + 1, "last_seq": place.seq + 2}
    assert told["durability"] == "disk"
    assert (await shop.audit()).differences == []


async def test_an_old_copy_put_back_is_closed_and_rebuilt(shop: Shop) -> None:
    """With what it has done since it was put back, which follows nothing: that is given up, and said."""
    copy = {key: shop.client.dump(key) for key in shop.client.keys("{p00}:*")}
    sold = await shop.hold(Line("shoe", 1), buyer="ann")
    await shop.hold(Line("shoe", 1), buyer="bob")
    shop.writing.drain()
    before = image(shop.client)
    shop.client.flushall()
    for key, value in copy.items():
        shop.client.restore(key, 0, value)
    with pytest.raises(Recovering):
        await shop.engine.hold(key="on the old copy", lines=[Line("shoe", 1)], buyer="cat")
    assert look(shop).why == Why.BEHIND
    for _ in range(4):
        shop.writing.turn(block=False)
    assert look(shop).why == Why.BEHIND  # the ledger has not taken the fork, and was not stopped by it either
    done = await asyncio.to_thread(restore_of(shop).run, look(shop))
    assert len(done.dropped) == 1 and done.missing is None
    assert image(shop.client) == before
    await shop.served(2)
    outcome = await shop.engine.commit(sold.id)
    assert isinstance(outcome, Applied)
    assert (await shop.audit()).differences == []


async def test_by_hand_a_damaged_store_is_mended_and_its_journal_kept(shop: Shop) -> None:
    """A counter that somebody changed and a record that somebody deleted: gone. What only the journal has: kept."""
    kept = await shop.hold(Line("shoe", 1), buyer="ann")
    before = image(shop.client)
    counters = msgspec.msgpack.decode(shop.client.hget(shop.keys.stock, b"shoe\0default"))
    counters[1] += 5
    shop.client.hset(shop.keys.stock, b"shoe\0default", msgspec.msgpack.encode(counters))
    shop.client.hdel(shop.keys.holds, kept.id[6:20])
    done = await restored(shop)
    assert (done.missing, done.dropped) == (None, [])
    assert image(shop.client) == before
    assert (await shop.audit()).differences == []


async def test_of_two_holds_of_one_key_the_later_stays(shop: Shop) -> None:
    """Somebody deletes the memory of keys, and a repeated request makes a second hold: the first one goes back."""
    lines = [Line("shoe", 1)]

    async def hold(key: str) -> Hold:
        outcome = await shop.engine.hold(key=key, lines=lines, buyer="zoe")
        assert isinstance(outcome, Applied)
        return outcome.value

    await shop.engine.move("receipt", "shoe", 50, key=shop.key())
    before = (await shop.engine.read_stock("shoe")).value
    both_live, first_sold, sold_later = await hold("again"), await hold("sold"), await hold("later")
    await shop.engine.commit(first_sold.id)
    shop.client.hdel(shop.keys.holds, *map(key_digest, ("again", "sold", "later")))
    kept = [await hold("again"), await hold("sold")]
    await shop.engine.commit((await hold("later")).id)
    shop.writing.drain()

    done = await restored(shop)

    assert sorted(done.released) == sorted([both_live.id, sold_later.id])
    assert await shop.found() == []
    after = (await shop.engine.read_stock("shoe")).value
    assert (after.held - before.held, after.committed - before.committed) == (2, 2)
    assert [(await shop.engine.read_hold(one.id)).value.state.label for one in kept] == ["held", "held"]
    over = await shop.engine.hold(key=shop.key(), lines=[Line("shoe", 6)], buyer="zoe")
    assert isinstance(over, Refused), "four of nine are hers"
    assert isinstance(await shop.engine.hold(key=shop.key(), lines=[Line("shoe", 5)], buyer="zoe"), Applied)
    reader = Reader(shop.database_url)
    try:
        gone = await reader.hold(both_live.id)
    finally:
        await reader.close()
    assert gone is not None
    assert (gone["state"], gone["reason"]) == ("released", "key-used-again")


async def test_keys_are_remembered_for_their_time_and_no_longer(one_redis_url: str, database_url: str) -> None:
    """Ended longer ago than keys are remembered: forgotten. A live hold's old answers: still known."""
    options = replace(MEMORY, retention_ms=1_500)
    async with open_shop(one_redis_url, database_url, retention_ms=1_500) as shop:
        engine = shop.engine
        await engine.move("receipt", "shoe", 9, key="old delivery")
        old = await shop.hold(Line("shoe", 1))
        await engine.release(old.id, key="old release")
        live = await shop.hold(Line("shoe", 1))
        extended = await engine.extend(live.id, ttl_ms=900_000, key="old extension")
        await asyncio.sleep(1.6)
        young = await shop.hold(Line("shoe", 1))
        await engine.commit(young.id)
        shop.writing.drain()
        shop.client.flushall()
        shop.writing.turn(block=False)
        restore = Restore(
            shop.client, database_url, options, level="disk", write_on=lambda: shop.writing.turn(block=False)
        )
        done = await asyncio.to_thread(restore.run, look(shop))
        assert (done.holds_live, done.holds_ended, done.answers) == (1, 1, 1)
        assert isinstance(await engine.read_hold(old.id), Refused)
        assert isinstance(extended, Applied)
        assert await engine.extend(live.id, ttl_ms=900_000, key="old extension") == extended._replace(replayed=True)
        await engine.sweep()
        assert await engine.extend(live.id, ttl_ms=900_000, key="old extension") == extended._replace(replayed=True)
        await engine.release(live.id)
        async with asyncio.timeout(20):
            while shop.client.hlen(shop.keys.holds):  # in the end nothing is kept for ever
                await engine.sweep()
                await asyncio.sleep(0.1)
        assert (await shop.audit()).differences == []


async def test_a_ledger_that_does_not_add_up_is_not_sold_from(shop: Shop) -> None:
    """A balance that its holds do not explain: the store stays closed."""
    tamper(shop.database_url, "UPDATE balances SET held = held + 1, available = available - 1 WHERE sku = 'shoe'")
    shop.client.flushall()
    with pytest.raises(LedgerConflict, match="does not add up"):
        await asyncio.to_thread(restore_of(shop).run, look(shop))
    with pytest.raises(Recovering):
        await shop.engine.read_stock("shoe")


async def test_the_journal_goes_on_behind_the_ledger_though_the_clock_is_slow(shop: Shop) -> None:
    """A new server whose clock is an hour behind the stream ids that the ledger remembers."""
    tamper(shop.database_url, "UPDATE partitions SET stream_id = '9999999999999-5'")
    shop.writing._forget()
    shop.client.flushall()
    assert (await asyncio.to_thread(restore_of(shop).run, look(shop))).place is not None
    await shop.hold(Line("shoe", 1), buyer="bob")
    assert (await shop.audit()).differences == []


async def test_what_only_redis_has_is_never_thrown_away_by_itself(shop: Shop) -> None:
    """A ledger behind what was trimmed, a fork at one seq, a stopped writer: found, and not restored by a worker."""
    recovery = Recovery(shop.client, shop.database_url, MEMORY)
    try:
        assert recovery.look() == Look(True, look(shop))
        place = await shop.engine.place()
        shop.client.hset(shop.keys.meta, "chain", "f" * 40)
        assert look(shop).why == Why.FORKED and recovery.look() == Look(False, look(shop))
        shop.client.hset(shop.keys.meta, "chain", place.chain)
        await shop.hold(Line("shoe", 1), buyer="ann")
        await shop.hold(Line("shoe", 1), buyer="bob")
        shop.client.xtrim(shop.keys.journal, maxlen=1, approximate=False)
        assert look(shop).why == Why.GAP and recovery.look() == Look(True, look(shop))
        for _ in range(4):
            shop.writing.turn(block=False)
        assert look(shop).why == Why.HALTED and recovery.look().restored is None
        assert (await shop.engine.place()).epoch == 1
    finally:
        recovery.close()


async def test_two_empty_stores_are_a_beginning(one_redis_url: str, database_url: str) -> None:
    """Nothing is restored there; but a store that this worker has seen otherwise has lost what it had."""
    async with open_shop(one_redis_url, database_url) as shop:
        shop.client.flushall()
        recovery = Recovery(shop.client, database_url, MEMORY)
        try:
            assert recovery.look().restored is None
            recovery.was_shown(1, 3)
            shop.writing.turn(block=False)
            writing = threading.Thread(target=lambda: [shop.writing.turn() for _ in range(9)])
            writing.start()
            done = recovery.look().restored
            writing.join()
            assert done is not None and done.missing == Missing(1, 1, 3)
            assert (await shop.engine.place()).epoch == 2
        finally:
            recovery.close()
