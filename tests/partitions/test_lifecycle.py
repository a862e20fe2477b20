"""Every verb over HTTP with SKUs spread over six partitions; the ledger whole, every audit clean."""

import asyncio

from prometheus_client import Gauge, generate_latest

from flashhold.services.gauges import WorkerGauges
from tests.http.conftest import Api
from tests.partitions.conftest import NAMES, audits, ledger_of, skus_by_place, until


async def _sell(api: Api, sku: str, place: str) -> None:
    """Receive ten, hold one to sell, one to give back and one to leave; ship what was sold."""
    receipt = {"type": "receipt", "sku": sku, "quantity": 10}
    entry = (await api.post("/v1/movements", receipt, key="new")).raise_for_status().json()
    assert entry["partition"] == place
    sold, undone, left = [await api.held(sku) for _ in range(3)]
    assert {sold["partition"], undone["partition"], left["partition"]} == {place}
    (await api.post(f"/v1/holds/{sold['id']}/commit", {"reference": "order"})).raise_for_status()
    (await api.post(f"/v1/holds/{undone['id']}/release")).raise_for_status()
    (await api.post(f"/v1/holds/{left['id']}/extend", {"ttl_seconds": 3000})).raise_for_status()
    (await api.post(f"/v1/holds/{left['id']}/amend", {"lines": [{"sku": sku, "quantity": 2}]})).raise_for_status()
    shipment = {"type": "shipment", "sku": sku, "quantity": 1}
    (await api.post("/v1/movements", shipment, key="new")).raise_for_status()
    stock = await api.stock(sku)
    assert (stock["partition"], stock["on_hand"], stock["held"], stock["committed"]) == (place, 9, 2, 0)
    hold = (await api.client.get(f"/v1/holds/{left['id']}")).raise_for_status().json()
    assert hold["state"] == "held"


async def test_a_shop_of_six_partitions(shop: Api) -> None:
    """Each SKU lives in one partition, every verb finds it there, and each partition's ledger is whole."""
    skus = skus_by_place(2)
    await asyncio.gather(*[_sell(shop, sku, place) for place, some in skus.items() for sku in some])
    every = [sku for some in skus.values() for sku in some]

    seen = (await shop.client.get("/v1/availability", params={"sku": [*every, "nobody's"]})).json()
    assert {item["sku"]: item["sellable"] for item in seen["items"]} == dict.fromkeys(every, 7)
    assert seen["unknown"] == ["nobody's"]

    async def written() -> bool:
        return len(await ledger_of(shop)) == 9 * len(every)

    await until(written, "all entries in the ledger")
    entries = await ledger_of(shop)
    assert [entry["partition"] for entry in entries] == sorted(entry["partition"] for entry in entries)
    for name in NAMES:
        assert [entry["seq"] for entry in entries if entry["partition"] == name] == list(range(1, 19))
        assert await ledger_of(shop, partition=name) == [entry for entry in entries if entry["partition"] == name]
    reports = await audits(shop)
    assert all(report.clean for report in reports.values()), reports
    assert sum(report.entries for report in reports.values()) == len(entries)


async def test_a_hold_that_nobody_came_back_for_expires_in_any_partition(shop: Api) -> None:
    """Each partition has its sweeper."""
    skus = [some[0] for some in skus_by_place().values()]
    for sku in skus:
        await shop.post("/v1/movements", {"type": "receipt", "sku": sku, "quantity": 1}, key="new")
        await shop.held(sku, ttl_seconds=1)

    async def expired() -> bool:
        return {entry["partition"] for entry in await ledger_of(shop, kind="expire")} == set(NAMES)

    await until(expired, "an expiry in every partition")
    assert {(await shop.stock(sku))["held"] for sku in skus} == {0}


async def test_holds_are_listed_over_all_partitions_and_none_is_left_out(shop: Api) -> None:
    """A page goes from one partition to the next, and a cursor on while others are made."""
    for sku in [some[0] for some in skus_by_place().values()]:
        await shop.post("/v1/movements", {"type": "receipt", "sku": sku, "quantity": 9}, key="new")
        for _ in range(3):
            await shop.held(sku, buyer="one")

    async def listed() -> list[str]:
        ids: list[str] = []
        cursor = None
        while True:
            params = {"buyer": "one", "limit": 4, **({"cursor": cursor} if cursor else {})}
            page = (await shop.client.get("/v1/holds", params=params)).raise_for_status().json()
            ids += [hold["id"] for hold in page["items"]]
            cursor = page["next_cursor"]
            if cursor is None or not page["items"]:
                return ids

    async def complete() -> bool:
        return len(await listed()) == 18

    await until(complete, "18 holds in the ledger")
    assert len(set(await listed())) == 18


def test_what_a_worker_shows_of_a_partitions_state_names_the_partition() -> None:
    """Every gauge is the state of one partition, and would otherwise be that of whichever spoke last; counts add up."""
    together = WorkerGauges(several=True)
    gauges = [name for name, figure in vars(WorkerGauges()).items() if isinstance(figure, Gauge)]
    for number, place in enumerate(("p03", "p04"), 1):
        mine = together.of(place)
        mine.entries.inc(number)
        for name in gauges:
            getattr(mine, name).set(number)
    shown = generate_latest(together.registry).decode()
    assert "flashhold_ledger_entries_total 3.0" in shown
    for place, value in (("p03", "1.0"), ("p04", "2.0")):
        assert shown.count(f'{{partition="{place}"}} {value}') == len(gauges)
