"""Gives a SKU's first limit its past: what buyers held or had bought before it was set.

The store counts from the limit on; what was before is in the ledger. It is added in parts, each of which the store
takes once and in turn, so any number of workers may try, and one that dies is simply followed by another.
"""

import asyncio
import random

import sqlalchemy as sa

from flashhold import telemetry
from flashhold.domain.errors import FlashHoldError
from flashhold.domain.outcomes import Refused
from flashhold.engine.engine import Engine
from flashhold.ledger.connect import shared_sync
from flashhold.ledger.shares import shares_before_limit, skus_being_counted
from flashhold.services.sweep import wait

PART_BUYERS_MAX = 1000
"""Buyers a part: about 3 ms of the store."""
PAUSE_MS = 500

_log = telemetry.logger(__name__)


async def count_buyers(engine: Engine, ledger: sa.Engine) -> int:
    """Completes the counts that wait, as far as the ledger has come; returns how many SKUs.

    Raises what `Engine.count_buyers` raises, and `LedgerUnavailable`.
    """
    skus = await asyncio.to_thread(skus_being_counted, ledger, engine.partition)
    for sku in skus:
        stock = await engine.read_stock(sku)
        if isinstance(stock, Refused) or stock.value.policy.counted < 1:
            continue
        shares = await asyncio.to_thread(shares_before_limit, ledger, engine.partition, sku)
        parts = [shares[at : at + PART_BUYERS_MAX] for at in range(0, len(shares), PART_BUYERS_MAX)] or [[]]
        for part in range(stock.value.policy.counted, len(parts) + 1):
            await engine.count_buyers(sku, part=part, last=part == len(parts), units=dict(parts[part - 1]))
        _log.info("buyers-counted", sku=sku, buyers=len(shares))
    return len(skus)


async def run(engine: Engine, database_url: str, stop: asyncio.Event) -> None:
    """Looks for waiting counts until `stop`; stores that are away are waited for."""
    ledger = shared_sync(database_url)
    try:
        while not stop.is_set():
            try:
                await count_buyers(engine, ledger)
            except FlashHoldError as error:
                _log.warning("buyers-not-counted", reason=str(error))
            await wait(stop, PAUSE_MS * random.uniform(0.5, 1.0) / 1000)
    finally:
        await asyncio.to_thread(ledger.dispose)
