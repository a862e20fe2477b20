"""A worker that finds its store emptied or put back from an old copy rebuilds it, and the shop goes on by itself."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator

import pytest
import redis

from flashhold import EngineOptions
from flashhold.domain.errors import Recovering
from flashhold.domain.model import Line
from flashhold.domain.outcomes import Applied, Refused
from flashhold.domain.reasons import Reason
from flashhold.services.recovery import restore_by_hand
from tests.http.conftest import running_api
from tests.ledger.tables import rows
from tests.services.shop import Shop, open_shop
from tests.services.test_worker import Worker, until_written


@pytest.fixture
def start_worker(one_redis_url: str, database_url: str) -> Iterator[Callable[[], Worker]]:
    """Starts a worker on the session's Valkey; none outlives the test."""
    started: list[Worker] = []

    def start() -> Worker:
        started.append(Worker(one_redis_url, database_url))
        return started[-1]

    yield start
    for worker in started:
        worker.process.kill()
        worker.process.wait()


async def until(true: Callable[[], Awaitable[bool]], seconds: float = 20) -> None:
    """Wait for something that another process does."""
    async with asyncio.timeout(seconds):
        while not await true():  # noqa: ASYNC110  # neither a store nor the door has an event for it
            await asyncio.sleep(0.05)


async def written(shop: Shop) -> None:
    """Wait until a worker has written down all that there is."""
    place = await shop.engine.place()

    async def is_written() -> bool:
        return bool(rows(shop.database_url, "SELECT FROM partitions WHERE seq >= %s", place.seq))

    await until(is_written)


async def test_an_emptied_store_is_rebuilt_while_everything_runs(
    one_redis_url: str, database_url: str, start_worker: Callable[[], Worker]
) -> None:
    """FLUSHALL under a worker: refused until rebuilt, then every hold, key, limit and deadline as before."""
    async with open_shop(one_redis_url, database_url) as shop:
        start_worker()
        await shop.trade()
        await written(shop)
        engine = shop.engine
        late = await shop.hold(Line("sock 😀 {p00}", 1), ttl_ms=8_000)
        sold = await engine.hold(key="to be sold", lines=[Line("sock 😀 {p00}", 2)], buyer="zoe")
        assert isinstance(sold, Applied)
        moved = await engine.move("receipt", "shoe", 3, key="delivery", reference="d-1")
        extended = await engine.extend(sold.value.id, ttl_ms=800_000, key="more time")
        ids = await holds_of(shop)
        before = {hold: await engine.read_hold(hold) for hold in ids}
        await written(shop)
        shop.client.flushall()
        with pytest.raises(Recovering):
            await engine.hold(key="meanwhile", lines=[Line("shoe", 1)])
        await shop.served(2)
        assert {hold: await engine.read_hold(hold) for hold in ids} == before
        for first, again in (
            (sold, await engine.hold(key="to be sold", lines=[Line("sock 😀 {p00}", 2)], buyer="zoe")),
            (moved, await engine.move("receipt", "shoe", 3, key="delivery", reference="d-1")),
            (extended, await engine.extend(sold.value.id, ttl_ms=800_000, key="more time")),
        ):
            assert again == first._replace(replayed=True)
        reused = await engine.hold(key="to be sold", lines=[Line("sock 😀 {p00}", 1)], buyer="zoe")
        assert isinstance(reused, Refused) and reused.reason == Reason.IDEMPOTENCY_KEY_REUSED
        committed = await engine.commit(sold.value.id, reference="paid")
        assert isinstance(committed, Applied) and committed.value.epoch == 2
        # ann holds and has bought some of nine: one more than she may is refused, as before.
        refused = await engine.hold(key="greedy", lines=[Line("shoe", 9)], buyer="ann")
        assert isinstance(refused, Refused) and refused.reason == Reason.PURCHASE_LIMIT_EXCEEDED
        # Nobody asks for it: its deadline is known again, and the worker sweeps.
        await until(lambda: expired_in(database_url, late.id, 2))
        await written(shop)
        assert (await shop.audit()).differences == []
        assert rows(database_url, "SELECT epoch, reason FROM entries WHERE kind = 'restore'") == [(2, "store-empty")]


async def expired_in(database_url: str, hold: str, epoch: int) -> bool:
    """Whether the ledger has the hold's expiry, under this epoch."""
    return rows(database_url, "SELECT epoch FROM entries WHERE kind = 'expire' AND hold = %s", hold) == [(epoch,)]


async def holds_of(shop: Shop) -> list[str]:
    """Every hold there ever was."""
    await written(shop)
    found = rows(shop.database_url, "SELECT hold FROM entries WHERE kind = 'hold' ORDER BY seq")
    return [row[0] for row in found]


async def test_the_door_stays_shut_until_all_is_back_and_opens_by_itself(
    one_redis_url: str, database_url: str, start_worker: Callable[[], Worker]
) -> None:
    """Redis emptied under the whole house: 503 recovering and never a wrong answer, then the same bodies as before."""
    async with running_api(one_redis_url, database_url, durability="disk") as api:
        start_worker()
        sku = await api.stocked(100)
        body = {"lines": [{"sku": sku, "quantity": 1}], "buyer": "ann"}
        accepted = {key: await api.post("/v1/holds", body, key=key) for key in (f"key-{n}" for n in range(20))}
        await asyncio.to_thread(until_written, database_url, 21)
        with redis.Redis.from_url(one_redis_url) as client:
            client.flushall()
        began, statuses = time.monotonic(), set()
        while (answer := await api.client.get(f"/v1/skus/{sku}")).status_code != 200:
            statuses.add((answer.status_code, answer.json()["code"]))
            assert time.monotonic() - began < 20
            await asyncio.sleep(0.01)
        assert statuses <= {(503, "recovering")}
        assert (answer.json()["held"], answer.json()["sellable"], answer.json()["epoch"]) == (20, 80, 2)
        for key, first in accepted.items():
            again = await api.post("/v1/holds", body, key=key)
            assert (again.status_code, again.text) == (201, first.text)
            assert again.headers["idempotency-replayed"] == "true"

        async def says_so() -> bool:
            return "restored" in (await api.client.get("/readyz")).json()

        await until(says_so, 5)  # a restore between two looks at the stores is told by the second
        ready = (await api.client.get("/readyz")).json()
        assert ready["restored"]["epoch"] == 2 and ready["restored"]["missing"] is None
        entries = (await api.client.get("/v1/ledger", params={"kind": "restore"})).json()["items"]
        assert [(entry["epoch"], entry["seq"], entry["postings"]) for entry in entries] == [(2, 22, [])]


async def test_what_no_ledger_has_heard_of_is_not_forgotten(
    one_redis_url: str, database_url: str, start_worker: Callable[[], Worker]
) -> None:
    """Redis emptied before any worker had written a thing, and nobody left who saw it: not taken for a beginning."""
    async with running_api(one_redis_url, database_url) as api:
        sku = await api.stocked(5)
    with redis.Redis.from_url(one_redis_url) as client:
        client.flushall()
    with pytest.raises(TimeoutError, match="recovering"):
        async with running_api(one_redis_url, database_url, patience_seconds=2):
            raise AssertionError("it opened")
    start_worker()
    async with running_api(one_redis_url, database_url) as api:
        assert (await api.client.get(f"/v1/skus/{sku}")).status_code == 404
        told = (await api.client.get("/readyz")).json()["restored"]
        assert (told["epoch"], told["reason"], told["after_seq"]) == (2, "store-empty", 0)


async def test_what_was_acknowledged_and_is_gone_is_said(one_redis_url: str, database_url: str) -> None:
    """No worker had written it down: after the restore the process that answered it says which entries are missing."""
    async with running_api(one_redis_url, database_url) as api:
        sku = await api.stocked(5)
        await api.held(sku)
        with redis.Redis.from_url(one_redis_url) as client:
            client.flushall()
        options = EngineOptions()
        done = await asyncio.to_thread(restore_by_hand, one_redis_url, database_url, options, leave=True)
        assert done.restored is not None and done.restored.place is not None

        async def says_so() -> bool:
            return "restored" in (await api.client.get("/readyz")).json()

        async def shows_it() -> bool:
            return "flashhold_missing_entries 2.0" in (await api.client.get("/metrics")).text

        await until(says_so)
        told = (await api.client.get("/readyz")).json()["restored"]
        lost = {"first_seq": 1, "last_seq": 2, "entries": 2}
        assert (told["durability"], told["missing"], told["reason"]) == ("disk", lost, "by-hand")
        await until(shows_it)
