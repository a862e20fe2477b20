"""A worker that finds its store emptied or put back from an old copy rebuilds it, and the shop goes on by itself."""

import asyncio
from collections.abc import Callable, Iterator

import pytest

from flashhold.domain.errors import Recovering
from flashhold.domain.model import Line
from flashhold.domain.outcomes import Applied, Refused
from flashhold.domain.reasons import Reason
from tests.ledger.tables import rows
from tests.services.shop import Shop, open_shop
from tests.services.test_worker import Worker


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


async def written(shop: Shop, seconds: float = 20) -> None:
    """Wait until a worker has written down all that there is."""
    place = await shop.engine.place()
    async with asyncio.timeout(seconds):
        while rows(shop.database_url, "SELECT seq FROM partitions") != [(place.seq,)]:  # noqa: ASYNC110  # the database has no event for it
            await asyncio.sleep(0.02)


async def test_an_emptied_store_is_rebuilt_while_everything_runs(
    one_redis_url: str, database_url: str, start_worker: Callable[[], Worker]
) -> None:
    """FLUSHALL under a worker: refused until rebuilt, then every hold, key, limit and deadline as before."""
    async with open_shop(one_redis_url, database_url) as shop:
        start_worker()
        await shop.trade()
        engine = shop.engine
        late = await shop.hold(Line("sock 😀 {p00}", 1), ttl_ms=3_000)
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
        await asyncio.sleep(3)
        ended = await engine.read_hold(late.id)
        assert isinstance(ended, Applied) and ended.value.state.label == "expired"
        await written(shop)
        assert (await shop.audit()).differences == []
        assert rows(database_url, "SELECT epoch, reason FROM entries WHERE kind = 'restore'") == [(2, "store-empty")]


async def holds_of(shop: Shop) -> list[str]:
    """Every hold there ever was."""
    await written(shop)
    found = rows(shop.database_url, "SELECT hold FROM entries WHERE kind = 'hold' ORDER BY seq")
    return [row[0] for row in found]
