"""Carts over several partitions as a client has them: answers, pages of the ledger, and a process that is killed."""

import asyncio
import os
import random
import signal
import uuid
from datetime import datetime
from typing import Any

import httpx
import pytest

from tests.http.conftest import Api, running_api, serving
from tests.partitions.conftest import audits, ledger_of, shop, skus_by_place, until, worker_process

__all__ = ["shop"]


async def stocked(api: Api, units: int = 10) -> list[str]:
    """A SKU in every partition, in the order of the partitions."""
    skus = [some[0] for _, some in sorted(skus_by_place().items())]
    for sku in skus:
        body = {"type": "receipt", "sku": sku, "quantity": units}
        (await api.post("/v1/movements", body, key="new")).raise_for_status()
    return skus


def lines(skus: list[str], quantity: int = 1) -> list[dict[str, Any]]:
    return [{"sku": sku, "quantity": quantity} for sku in skus]


async def test_a_cart_lives_like_any_other_hold(shop: Api) -> None:
    """Held, read, extended, sold in part, corrected; each answer as of a hold, whatever the partitions."""
    skus = await stocked(shop)
    wanted = [skus[4], skus[1], skus[2]]
    body = {"lines": lines(wanted, 2), "buyer": "ann", "metadata": {"b": 1, "a": 2}, "ttl_seconds": 60}
    made = await shop.post("/v1/holds", body, key="cart")
    assert made.status_code == 201, made.text
    hold = made.json()
    assert made.headers["location"] == f"/v1/holds/{hold['id']}"
    assert [line["sku"] for line in hold["lines"]] == wanted
    assert (hold["partition"], hold["metadata"], hold["state"]) == ("p01", {"a": 2, "b": 1}, "held")
    again = await shop.post("/v1/holds", body, key="cart")
    assert (again.status_code, again.content) == (201, made.content)
    assert (made.headers["idempotency-replayed"], again.headers["idempotency-replayed"]) == ("false", "true")
    reused = await shop.post("/v1/holds", {"lines": lines(wanted, 1), "buyer": "ann"}, key="cart")
    assert reused.json()["code"] == "idempotency-key-reused"
    at = f"/v1/holds/{hold['id']}"
    assert (await shop.client.get(at)).content == made.content
    assert (await shop.post(f"{at}/extend", {"ttl_seconds": 600})).json()["expires_at"] > hold["expires_at"]
    amended = await shop.post(f"{at}/amend", {"lines": lines(skus)})
    assert (amended.status_code, amended.json()["code"]) == (422, "invalid-request")
    sold = await shop.post(f"{at}/commit", {"reference": "order", "lines": lines(wanted)})
    assert sold.status_code == 200, sold.text
    assert [(line["committed"], line["released"]) for line in sold.json()["lines"]] == [(1, 1)] * 3
    assert sold.json()["reference"] == "order"
    for sku in wanted:
        stock = await shop.stock(sku)
        assert (stock["held"], stock["committed"], stock["sellable"]) == (0, 1, 9)
    for sku in wanted:
        back = {"type": "cancel", "sku": sku, "quantity": 1, "hold": hold["id"]}
        cancelled = await shop.post("/v1/movements", back, key="new")
        assert (cancelled.status_code, cancelled.json()["hold"]) == (201, hold["id"])
    too_much = {"type": "cancel", "sku": wanted[0], "quantity": 1, "hold": hold["id"]}
    assert (await shop.post("/v1/movements", too_much, key="new")).json()["code"] == "movement-refused"


async def test_a_refused_cart_names_every_short_line(shop: Api) -> None:
    """As one hold would; what is wrong with the request sticks to no key."""
    skus = await stocked(shop)
    short = await shop.post("/v1/holds", {"lines": lines(skus[:2], 11) + lines(skus[2:4])}, key="new")
    assert (short.status_code, short.json()["code"]) == (409, "insufficient-stock")
    assert short.json()["lines"] == [
        {"sku": sku, "pool": "default", "requested": 11, "sellable": 10} for sku in skus[:2]
    ]
    unknown = await shop.post("/v1/holds", {"lines": lines([*skus[:2], "nobody's"])}, key="new")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown-sku")
    partial = await shop.post("/v1/holds", {"lines": lines(skus), "allow_partial": True}, key="new")
    assert (partial.status_code, partial.json()["errors"][0]["field"]) == (422, "allow_partial")
    (await shop.client.put(f"/v1/skus/{skus[3]}", json={"max_per_buyer": 2})).raise_for_status()
    (await shop.client.put(f"/v1/skus/{skus[5]}", json={"hold_ttl_seconds": 30, "hold_ttl_seconds_max": 40}))
    nobody = await shop.post("/v1/holds", {"lines": lines(skus)}, key="mended")
    assert (nobody.status_code, nobody.json()["errors"][0]["field"]) == (422, "buyer")
    long = await shop.post("/v1/holds", {"lines": lines(skus), "buyer": "ann", "ttl_seconds": 41}, key="mended")
    assert (long.status_code, long.json()["errors"][0]["field"]) == (422, "ttl_seconds")
    mended = await shop.post("/v1/holds", {"lines": lines(skus), "buyer": "ann"}, key="mended")
    assert mended.status_code == 201
    begin, end = (datetime.fromisoformat(mended.json()[name]) for name in ("created_at", "expires_at"))
    assert (end - begin).total_seconds() == 30
    limit = await shop.post("/v1/holds", {"lines": lines(skus, 2), "buyer": "ann"}, key="new")
    assert (limit.status_code, limit.json()["code"]) == (409, "purchase-limit-exceeded")
    for sku in skus:
        assert (await shop.stock(sku))["held"] == 1


async def test_pages_show_the_cart_and_not_its_parts(shop: Api) -> None:
    """By buyer once, by each of its SKUs, and every entry of every partition by the cart's id."""
    skus = (await stocked(shop))[:3]
    hold = (await shop.post("/v1/holds", {"lines": lines(skus), "buyer": "ann"}, key="new")).json()
    (await shop.post(f"/v1/holds/{hold['id']}/commit", {"lines": lines(skus[1:])})).raise_for_status()

    async def written() -> bool:
        return len(await ledger_of(shop, hold=hold["id"])) == 6

    await until(written, "two entries in each of three partitions")
    entries = await ledger_of(shop, hold=hold["id"])
    assert [entry["kind"] for entry in entries] == ["hold", "commit"] * 3
    assert entries[0]["details"]["cart"][1] == {
        "partition": entries[2]["partition"], "sku": skus[1], "quantity": 1, "pool": "default"
    }  # fmt: skip
    assert entries[1]["details"]["takes"] == [0, 1, 1]
    assert entries[2]["details"] == {"part_of": hold["id"]}
    shown = (await shop.client.get(f"/v1/holds/{hold['id']}")).json()
    for filters in ({"buyer": "ann"}, {"sku": skus[0]}, {"sku": skus[2]}, {"state": "committed"}):
        page = (await shop.client.get("/v1/holds", params=filters)).raise_for_status().json()
        assert page["items"] == [shown], filters
    part = entries[2]["hold"]
    assert (await shop.client.get(f"/v1/holds/{part}")).json() == shown
    for verb, body in (
        ("commit", {}),
        ("release", {}),
        ("extend", {"ttl_seconds": 9}),
        ("amend", {"lines": lines(skus)}),
    ):
        refused = await shop.post(f"/v1/holds/{part}/{verb}", body)
        assert refused.status_code == 404, verb
    assert all(report.clean for report in (await audits(shop)).values())


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_carts_of_a_killed_process_are_completed(one_redis_url: str, database_url: str) -> None:
    """An API process is killed again and again while carts are held and sold: whoever repeats his key gets an answer
    that stays, what nobody comes back for is given back, and not one unit is lost or sold twice."""
    environ = {
        "FLASHHOLD_REDIS_URL": one_redis_url,
        "FLASHHOLD_DATABASE_URL": database_url,
        "FLASHHOLD_PARTITIONS": "6",
    }
    chance = random.Random(7)
    async with running_api(one_redis_url, database_url, partitions=6) as api:
        skus = await stocked(api, 1_000)
        with worker_process(one_redis_url, database_url):
            sent: dict[str, dict[str, Any]] = {}
            told: dict[str, tuple[int, bytes]] = {}
            for _ in range(2):
                with serving(**environ) as (parent, url):
                    async with httpx.AsyncClient(base_url=url, headers=dict(api.client.headers), timeout=10) as client:
                        await _shop_until_killed(client, parent, skus, sent, told, chance)
            assert len(told) < len(sent), "nothing was interrupted"
            for key, answer in told.items():
                again = await api.post("/v1/holds", sent[key], key=key)
                assert (again.status_code, again.content) == answer
            for key in chance.sample(sorted(sent.keys() - told.keys()), len(sent.keys() - told.keys()) // 2):
                answers = [await api.post("/v1/holds", sent[key], key=key) for _ in range(2)]
                assert answers[0].content == answers[1].content

            async def quiet() -> bool:
                return all([(await api.stock(sku))["held"] == 0 for sku in skus])

            await until(quiet, "all carts sold or given back", 60)
            carts = [hold for hold in await _holds(api) if hold["state"] == "committed"]
            assert carts, "none was sold"
            for sku in skus:
                sold = sum(line["committed"] for cart in carts for line in cart["lines"] if line["sku"] == sku)
                assert (await api.stock(sku))["committed"] == sold
            assert all(report.clean for report in (await audits(api)).values())


async def _shop_until_killed(
    client: httpx.AsyncClient, parent: Any, skus: list[str], sent: dict[str, Any], told: dict[str, Any], chance: Any
) -> None:
    async def buy() -> None:
        while True:
            key = uuid.uuid4().hex
            sent[key] = {"lines": lines(chance.sample(skus, chance.randint(2, 6))), "ttl_seconds": 6}
            held = await client.post("/v1/holds", json=sent[key], headers={"Idempotency-Key": key})
            if held.status_code == 201:
                told[key] = held.status_code, held.content
                await client.post(f"/v1/holds/{held.json()['id']}/commit", json={"reference": key})

    buyers = [asyncio.create_task(buy()) for _ in range(12)]
    await asyncio.sleep(chance.uniform(0.5, 1.5))
    os.kill(parent.pid, signal.SIGKILL)
    for ended in await asyncio.gather(*buyers, return_exceptions=True):
        assert isinstance(ended, httpx.TransportError), ended


async def _holds(api: Api) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    cursor = None
    while True:
        params = {"limit": 500, **({"cursor": cursor} if cursor else {})}
        page = (await api.client.get("/v1/holds", params=params)).raise_for_status().json()
        items += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            return items
