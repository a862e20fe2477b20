"""The quick tier: what the engine does in Python, without a server."""

import asyncio
from typing import Any

import fakeredis
import msgspec
import pytest

from flashhold import EngineOptions, Line
from flashhold.domain import commands
from flashhold.domain.entries import Batch
from flashhold.domain.errors import Overloaded, StoreUnavailable
from flashhold.domain.idempotency import hold_id, key_digest, parse_hold_id
from flashhold.engine.batcher import Batcher
from flashhold.engine.codec import encode, unpack
from flashhold.engine.connection import ServerError
from flashhold.engine.journal import Journal, chain_after
from flashhold.engine.keys import partition_keys
from tests.engine.proof import next_head

pytestmark = pytest.mark.quick

SHOE = (Line("shoe", 1),)
HOLD = commands.Hold("key", SHOE, "ann", 60_000, False, '{"a":1}')
ZERO = {"oversell_allowance": 0, "safety_stock": 0}
HELD = hold_id("p00", key_digest("key"), 7)


def fingerprint_of(command: Any) -> str:
    """What the script compares when a key comes again."""
    return str(encode(command)[2])


PARTIAL = HOLD._replace(allow_partial=True)


@pytest.mark.parametrize(
    "other",
    [
        PARTIAL._replace(lines=(Line("shoe", 2),)),
        PARTIAL._replace(lines=(Line("shoe", 1, "eu"),)),
        PARTIAL._replace(lines=(*SHOE, *SHOE)),
        PARTIAL._replace(buyer="bob"),
        PARTIAL._replace(buyer=None),
        PARTIAL._replace(ttl_ms=None),
        PARTIAL._replace(metadata=None),
        PARTIAL._replace(buyer='{"a":1}', metadata="ann"),
        commands.Move("key", "receipt", "shoe", 1),
        commands.Release(HELD, key="key"),
        commands.SetPolicy("shoe", {}, True, "key"),
    ],
)
def test_another_wish_has_another_fingerprint(other: Any) -> None:
    """Whatever is meant differently under a key is told apart."""
    assert fingerprint_of(other) != fingerprint_of(PARTIAL)


@pytest.mark.parametrize(
    ("one", "same"),
    [
        (
            commands.Hold("key", SHOE, allow_partial=True),
            commands.Hold("key", (Line("shoe", 1, "default"),), None, None, True, None),
        ),
        (commands.Commit(HELD, None, None, False, "key"), commands.Commit(HELD, key="key")),
        (
            commands.SetPolicy("shoe", {"class": "a", "max_per_buyer": 2, "pools": None}, False, "key"),
            commands.SetPolicy("shoe", {"max_per_buyer": 2, "class": "a", "opens_at_ms": None}, False, "key"),
        ),
        (
            commands.SetPolicy("shoe", {"pools": {"b": {"safety_stock": 1}, "a": {}}}, True, "key"),
            commands.SetPolicy(
                "shoe", {"pools": {"a": None, "b": {"oversell_allowance": 0, "safety_stock": 1}}}, True, "key"
            ),
        ),
    ],
)
def test_the_same_wish_has_the_same_fingerprint(one: Any, same: Any) -> None:
    """Defaults spelled out, nulls and the order of members mean nothing."""
    assert fingerprint_of(one) == fingerprint_of(same)


@pytest.mark.parametrize("seq", [1, 255, 2**32, 2**53])
def test_a_hold_id_says_where_it_came_from(seq: int) -> None:
    """Partition, digest and seq come out as they went in; what is no id is told apart."""
    made = hold_id("p07", key_digest("cart"), seq)
    assert made.startswith("hld_")
    assert parse_hold_id(made) == ("p07", key_digest("cart"), seq)
    for wrong in ("", "hld_", made[1:], made + "g", made.upper(), made + "\n", "x" * 400):
        assert parse_hold_id(wrong) is None


class Link:
    """A store that answers when the test says so."""

    def __init__(self) -> None:
        self.ready, self.down, self.fsyncs = True, None, True
        self.sent: list[tuple[list[Any], asyncio.Future[Any], str]] = []
        self.aborted: list[str] = []

    def apply(self, nonce: str, batch: bytes, **_: bool) -> "asyncio.Future[Any]":
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.sent.append((unpack(batch), future, nonce))
        return future

    def answer(self, number: int, nonce: str | None = None) -> None:
        """Refuse every command of a batch with a detail that names its key."""
        wires, future, own = self.sent[number]
        refusals = [[3, 0, "unknown-sku", {"sku": wire[4]}, 1, 0] for wire in wires]
        future.set_result(msgspec.msgpack.encode([nonce or own, 0, 1, 0, "", {}, refusals]))

    def seen(self, _: int, __: int) -> None:
        return

    def shown(self, _: int, __: int) -> None:
        return

    def gives_way(self, _: Exception) -> bool:
        """Not ready until the test says so."""
        self.ready = False
        return True

    def abort(self, why: str) -> None:
        self.aborted.append(why)


def reads(*skus: str) -> list[commands.ReadStock]:
    """Strong reads of these SKUs."""
    return [commands.ReadStock(sku) for sku in skus]


async def test_what_comes_while_batches_fly_shares_the_next(tmp_path: Any) -> None:
    """Two batches are in flight at once; all that arrives meanwhile becomes one batch, in order."""
    link = Link()
    batcher = Batcher(link, EngineOptions())  # type: ignore[arg-type]  # a link as far as a batcher sees
    futures = []
    for sku in ("a", "b"):
        futures.append(batcher.submit(commands.ReadStock(sku)))
        await asyncio.sleep(0)
    futures += [batcher.submit(read) for read in reads("c", "d", "e")]
    await asyncio.sleep(0)
    assert [[wire[4] for wire in wires] for wires, _, _ in link.sent] == [["a"], ["b"]]
    assert batcher.waiting_commands == 3
    link.answer(0)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [wire[4] for wire in link.sent[2][0]] == ["c", "d", "e"]
    link.answer(1)
    link.answer(2)
    assert [(await future).detail["sku"] for future in futures] == ["a", "b", "c", "d", "e"]
    assert batcher.waiting_commands == 0


async def test_a_batch_ends_at_its_bounds() -> None:
    """No more commands than `batch_size_max`, no more weight than `batch_weight_max`, and a sweep is the last."""
    link = Link()
    options = EngineOptions(batch_size_max=4, batch_weight_max=100, batches_in_flight_max=9)
    batcher = Batcher(link, options)  # type: ignore[arg-type]  # a link as far as a batcher sees
    for read in reads(*"abcde"):
        batcher.submit(read)
    batcher.submit(commands.Amend(HELD, SHOE * 50))
    batcher.submit(commands.Sweep())
    batcher.submit(commands.ReadStock("z"))
    await asyncio.sleep(0)
    assert [len(wires) for wires, _, _ in link.sent] == [4, 1, 1, 1, 1]


async def test_an_answer_with_another_nonce_is_nobodys() -> None:
    """The whole batch is unknown and the connection is given up."""
    link = Link()
    batcher = Batcher(link, EngineOptions())  # type: ignore[arg-type]  # a link as far as a batcher sees
    futures = [batcher.submit(read) for read in reads("a", "b")]
    await asyncio.sleep(0)
    link.answer(0, nonce="somebody else's")
    results = await asyncio.gather(*futures, return_exceptions=True)
    assert {type(result) for result in results} == {StoreUnavailable}
    assert link.aborted


async def test_what_was_refused_is_sent_again_in_its_turn() -> None:
    """A slot on its way: both batches in flight come back, go before what came later and share one batch with it; whose
    time is over is told that nothing was carried out."""
    link = Link()
    batcher = Batcher(link, EngineOptions(reply_timeout_ms=300))  # type: ignore[arg-type]  # a link as far as a batcher sees
    futures = []
    for sku in ("a", "b"):
        futures.append(batcher.submit(commands.ReadStock(sku)))
        await asyncio.sleep(0)
    futures.append(batcher.submit(commands.ReadStock("c")))
    link.ready = False
    for number in (1, 0):
        link.sent[number][1].set_result(ServerError("TRYAGAIN Multiple keys request during rehashing of slot"))
        await asyncio.sleep(0)
    link.ready = True
    link.on_ready()  # type: ignore[attr-defined]  # set by the batcher
    assert [[wire[4] for wire in sent[0]] for sent in link.sent[2:]] == [["a", "b", "c"]]
    link.answer(2)
    assert [(await future).detail["sku"] for future in futures] == ["a", "b", "c"]
    late = batcher.submit(commands.ReadStock("late"))
    await asyncio.sleep(0)
    link.sent[3][1].set_result(ServerError("TRYAGAIN"))
    with pytest.raises(StoreUnavailable, match="not carried out"):
        await late


async def test_who_goes_away_before_sending_is_not_sent() -> None:
    """A cancelled call that no batch has taken yet costs nothing; one that was sent is read and thrown away."""
    link = Link()
    batcher = Batcher(link, EngineOptions(batches_in_flight_max=1))  # type: ignore[arg-type]  # as far as a batcher sees
    sent = batcher.submit(commands.ReadStock("sent"))
    await asyncio.sleep(0)
    gone, stays = (batcher.submit(read) for read in reads("gone", "stays"))
    gone.cancel()
    sent.cancel()
    link.answer(0)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [wire[4] for wire in link.sent[1][0]] == ["stays"]
    link.answer(1)
    assert (await stays).detail["sku"] == "stays"


async def test_the_queue_has_an_end() -> None:
    """One command too many is turned away at once, and those before it are not forgotten."""
    link = Link()
    batcher = Batcher(link, EngineOptions(waiting_max=3))  # type: ignore[arg-type]  # a link as far as a batcher sees
    futures = [batcher.submit(read) for read in reads("a", "b", "c")]
    with pytest.raises(Overloaded):
        batcher.submit(commands.ReadStock("d"))
    await asyncio.sleep(0)
    link.answer(0)
    assert [(await future).detail["sku"] for future in futures] == ["a", "b", "c"]


def _journal_of(count: int) -> tuple[Journal, list[Batch]]:
    """A journal of so many batches of one refused-looking entry each."""
    store = fakeredis.FakeRedis()
    chain, batches = "0" * 40, []
    for number in range(1, count + 1):
        payload = msgspec.msgpack.encode([("release", "", 0, "", "", "", 0, "", "", 0, [], False, "")])
        batch = Batch("p00", f"{number}-0", 1, number, 1, number, "", payload)
        chain = next_head(chain, batch)
        fields = {"epoch": 1, "seq": number, "count": 1, "at": number, "chain": chain, "payload": payload}
        store.xadd(partition_keys("p00").journal, fields, id=f"{number}-0")
        batches.append(batch._replace(chain=chain))
    return Journal(store, "p00"), batches


def test_a_journal_is_read_on_from_any_place() -> None:
    """In pieces as asked for, nothing twice, nothing left out; trimming takes only what lies before."""
    journal, batches = _journal_of(10)
    assert journal.read("0", 100, 0) == batches
    assert journal.read("0", 4, 0) == batches[:4]
    assert journal.read(batches[3].stream_id, 100, 0) == batches[4:]
    assert journal.read(batches[-1].stream_id, 100, 0) == []
    assert journal.trim(batches[6].stream_id) == 6
    assert journal.read("0", 100, 0) == batches[6:]
    assert journal.length() == 4


def test_the_chain_ties_each_batch_to_the_one_before() -> None:
    """The product's chain is the documented one, and any change of a batch shows in it."""
    _, batches = _journal_of(3)
    heads = ["0" * 40, *(batch.chain for batch in batches)]
    for previous, batch in zip(heads, batches, strict=False):
        assert chain_after(previous, batch) == batch.chain
        for changed in (
            batch._replace(payload=batch.payload + b"\0"),
            batch._replace(first_seq=9),
            batch._replace(at_ms=9),
            batch._replace(count=9),
            batch._replace(epoch=9),
        ):
            assert chain_after(previous, changed) != batch.chain
