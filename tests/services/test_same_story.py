"""The ledger tells of every hold and balance what the store tells, after all that a crowd can do."""

import msgspec
import pytest

from flashhold.domain.outcomes import Applied
from flashhold.http.responses import entry_body, hold_body
from flashhold.ledger.reader import Reader
from tests.engine.crowd import Crowd
from tests.engine.duel import Duel
from tests.services.shop import open_shop

FOREVER_MS = 10**13


@pytest.mark.parametrize("seed", range(6))
async def test_holds_fold_to_what_the_store_has(one_redis_url: str, database_url: str, seed: int) -> None:
    """Random shops: each hold of the ledger is, byte for byte, the hold of the store; the audit is clean."""
    retention = {"retention_ms": FOREVER_MS, "refused_retention_ms": FOREVER_MS}
    async with open_shop(one_redis_url, database_url, **retention) as shop:
        duel = await Duel(shop.engine, one_redis_url).start()
        await Crowd(seed).live(duel, batches=120)
        strong = {hold: await shop.engine.read_hold(hold) for hold in duel.holds}
        report = await shop.audit()
        assert report.differences == []
        reader = Reader(database_url)
        try:
            for hold, outcome in strong.items():
                assert isinstance(outcome, Applied)
                if outcome.value.state.label == "held":
                    continue  # the crowd has moved the store's clock: what is live there may be overdue for the ledger
                assert msgspec.json.encode(await reader.hold(hold)) == hold_body(outcome.value)
        finally:
            await reader.close()
        duel.close()
    assert len(strong) >= 5


async def test_a_movement_reads_as_it_was_answered(one_redis_url: str, database_url: str) -> None:
    """The entry that a movement was answered with is, member by member, the one in the ledger."""
    async with open_shop(one_redis_url, database_url) as shop:
        moved = await shop.engine.move("receipt", "shoe", 5, key="r", reference="delivery")
        assert isinstance(moved, Applied)
        shop.writing.drain()
        reader = Reader(database_url)
        page = await reader.ledger_page()
        await reader.close()
    assert msgspec.json.encode(page["items"][0]) == entry_body(moved.value)
