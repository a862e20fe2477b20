"""Do buyers hold and have of a SKU what the store counts for them, where a limit makes it count?"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import sqlalchemy as sa

from flashhold.engine.engine import Engine
from flashhold.engine.survey import QUEUE_MAX
from flashhold.ledger.revival import revival_on
from flashhold.services.records_check import Difference

Counted = dict[str, dict[str, int]]
"""sku → buyer → units."""


async def share_differences(
    engine: Engine, ledger: sa.Engine, reached: Callable[[int], Awaitable[bool]]
) -> list[Difference]:
    """Of all SKUs whose buyers are counted since ever. `reached`: waits until the ledger has come to a seq.

    Those whose units are the same in the ledger before and after the look at the store can be compared with it."""
    before = await asyncio.to_thread(_counted, ledger, engine.partition)
    found: dict[str, dict[str, int | None]] = {}
    last_seq = 0
    for sku, units in before.items():
        found[sku] = {}
        for some in _pages(list(units)):
            (_, seq), shares = await engine.survey.shares(sku, some)
            last_seq = max(last_seq, seq)
            found[sku].update(zip(some, map(_number, shares), strict=True))
    if not found or not await reached(last_seq):
        return []
    after = await asyncio.to_thread(_counted, ledger, engine.partition)
    return [
        Difference("share", f"{sku}, buyer {buyer}", str(units), str(found[sku][buyer]))
        for sku, buyers in before.items()
        for buyer, units in buyers.items()
        if units == after.get(sku, {}).get(buyer, 0) != found[sku][buyer]
    ]


def _counted(ledger: sa.Engine, partition: str) -> Counted:
    with revival_on(ledger, partition, retention_ms=0, now_ms=0) as revival:
        skus = [sku for sku in revival.skus(revival.pools()) if sku.counted < 0]
        counted: Counted = {sku.sku: {} for sku in skus}
        for share in revival.shares(skus):
            counted[share.sku][share.buyer] = share.units
        return counted


def _pages(buyers: list[str]) -> Iterator[list[str]]:
    for at in range(0, len(buyers), QUEUE_MAX):
        yield buyers[at : at + QUEUE_MAX]


def _number(units: str) -> int | None:
    """None: what no script wrote."""
    try:
        return int(units)
    except ValueError:
        return None
