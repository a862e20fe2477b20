"""Policies, strong reads, movements and the projection over HTTP."""

import asyncio
import uuid
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.http.conftest import Api

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize(
    "sku",
    ["a/b", "a//b", "/", "{p00}", "a:b", "🛒", "e\u0301", "é", "a b", "a%2Fb", "?x=1", "#", "..", ".", "a+b",
     "default", "commit",
     "\u202e", "x" * 128, "🛒" * 128, '"', "\\", "null", "ÿ"],
)  # fmt: skip
async def test_any_sku_goes_through_path_body_and_query(api: Api, sku: str) -> None:
    """One SKU is the same one in a path, a body and a query, byte for byte."""
    path = f"{api.url}/v1/skus/{quote(sku, safe='')}"
    # httpx would resolve `.` and `..` in a path itself.
    path = path.removesuffix(f"/{sku}") + "/" + "%2E" * len(sku) if set(sku) == {"."} else path
    answer = await api.client.put(path, json={"class": "odd"})
    assert (answer.status_code, answer.json()["sku"]) == (201, sku)
    await api.post("/v1/movements", {"type": "receipt", "sku": sku, "quantity": 3}, key="new")
    await api.held(sku)
    stock = (await api.client.get(path)).json()
    assert (stock["sku"], stock["on_hand"], stock["held"]) == (sku, 3, 1)
    seen = (await api.client.get("/v1/availability", params={"sku": sku})).json()
    assert seen["items"] == [{"sku": sku, "pool": "default", "sellable": 2}]


@pytest.mark.parametrize(
    "raw",
    [
        "%00",
        "%0A",
        "a%0Ab",
        "%0D%0A%0A",
        "%7F",
        "%C2%85",
        "%FF",
        "%ED%A0%80",
        "%C3",
        "x" * 129,
        "%F0%9F%9B%92" * 129,
        "x" * 10_000,
    ],
)
async def test_no_sku_goes_through_a_path(api: Api, raw: str) -> None:
    """422 for what cannot be a SKU, invalid UTF-8 included, on every method."""
    for method in ("PUT", "PATCH", "GET"):
        answer = await api.client.request(method, f"{api.url}/v1/skus/{raw}", json={} if method != "GET" else None)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid-request")
        assert answer.json()["errors"][0]["field"] == "sku"


@pytest.mark.parametrize("raw", ["%00", "%FF", "%ED%A0%80", "", "x" * 129])
async def test_no_sku_goes_through_a_query(api: Api, raw: str) -> None:
    """422 for what cannot be a SKU in a query."""
    answer = await api.client.get(f"{api.url}/v1/availability?sku={raw}")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-request")


async def test_two_spellings_are_two_skus(api: Api) -> None:
    """Composed and decomposed letters are different SKUs: nothing is normalised."""
    mark = uuid.uuid4().hex[:8]
    for sku, units in ((f"{mark}é", 1), (f"{mark}e\u0301", 2)):
        await api.post("/v1/movements", {"type": "receipt", "sku": sku, "quantity": units}, key="new")
    assert (await api.stock(quote(f"{mark}é")))["on_hand"] == 1
    assert (await api.stock(quote(f"{mark}e\u0301")))["on_hand"] == 2


async def test_put_replaces_and_patch_merges(api: Api) -> None:
    """A policy answers in the contract's names; 201 the first time, then 200."""
    path = f"/v1/skus/p-{uuid.uuid4().hex[:8]}"
    policy = {
        "class": "shoe", "safety_stock": 1, "oversell_allowance": 2, "hold_ttl_seconds": 30,
        "hold_ttl_seconds_max": 60,
        "max_per_buyer": 2, "opens_at": "2026-01-01T00:00:00.000Z", "closes_at": "2030-01-01T00:00:00.000Z",
        "partition_key": "drop", "durability": None, "pools": {"eu": {"safety_stock": 3, "oversell_allowance": 0}},
    }  # fmt: skip
    first = await api.client.put(path, json=policy)
    assert first.status_code == 201
    place = {"sku", "partition", "epoch", "seq"}
    assert {name: value for name, value in first.json().items() if name not in place} == policy
    patched = await api.client.patch(path, json={"safety_stock": 7, "pools": {"us": {"safety_stock": 4}}})
    assert patched.status_code == 200
    pools = {"eu": {"safety_stock": 3, "oversell_allowance": 0}, "us": {"safety_stock": 4, "oversell_allowance": 0}}
    told = patched.json()
    assert (told["safety_stock"], told["oversell_allowance"], told["class"], told["pools"]) == (7, 2, "shoe", pools)
    replaced = (await api.client.put(path, json={"class": "boot"})).json()
    assert (replaced["class"], replaced["safety_stock"], replaced["max_per_buyer"], replaced["opens_at"]) == (
        "boot",
        0,
        None,
        None,
    )
    assert all(set(pool.values()) == {0} for pool in replaced["pools"].values())


async def test_null_in_a_patch_changes_nothing(api: Api) -> None:
    """Null equals absent, so a merge with nulls leaves the policy and its seq as they were."""
    sku = await api.stocked(0, safety_stock=5, max_per_buyer=1)
    before = (await api.client.patch(f"/v1/skus/{sku}", json={})).json()
    assert (
        await api.client.patch(f"/v1/skus/{sku}", json={"safety_stock": None, "max_per_buyer": None})
    ).json() == before


async def test_a_strong_read(api: Api) -> None:
    """All figures of one pool, its policy beside them; a pool that is not there has nothing."""
    sku = await api.stocked(10, safety_stock=2, oversell_allowance=1)
    await api.held(sku, 3)
    stock = await api.stock(sku)
    figures = {
        name: stock[name] for name in ("on_hand", "held", "committed", "safety_stock", "oversell_allowance", "sellable")
    }
    assert figures == {
        "on_hand": 10,
        "held": 3,
        "committed": 0,
        "safety_stock": 2,
        "oversell_allowance": 1,
        "sellable": 6,
    }
    assert (stock["sku"], stock["pool"], stock["partition"], stock["epoch"]) == (sku, "default", "p00", 1)
    assert stock["as_of"].endswith("Z")
    assert (await api.stock(sku, "nowhere"))["on_hand"] == 0


async def test_movements(api: Api) -> None:
    """Each type moves the buckets that it names, and the answer is the ledger's entry."""
    sku = await api.stocked(20)
    hold = await api.held(sku, 6)
    await api.post(f"/v1/holds/{hold['id']}/commit")

    async def move(kind: str, quantity: int, **more: Any) -> dict[str, Any]:
        body = {"type": kind, "sku": sku, "quantity": quantity, **more}
        answer = await api.post("/v1/movements", body, key="new")
        assert answer.status_code == 201, answer.text
        entry: dict[str, Any] = answer.json()
        assert sum(posting["quantity"] for posting in entry["postings"]) == 0
        assert entry["kind"] == kind
        return entry

    shipped = await move("shipment", 2, reference="parcel")
    assert set(shipped) == {
        "partition", "epoch", "seq", "at", "kind", "hold", "buyer", "reference", "reason", "idempotency_key",
        "expires_at",
        "shortfall", "postings", "chain",
    }  # fmt: skip
    assert (shipped["reference"], shipped["hold"], shipped["shortfall"]) == ("parcel", None, None)
    assert len(shipped["chain"]) == 40
    await move("cancel", 1, hold=hold["id"])
    await move("return", 1, hold=hold["id"])
    await move("damage", 2)
    await move("adjustment", -1, reason="count")
    await move("transfer", 3, to_pool="eu")
    stock = await api.stock(sku)
    assert (stock["on_hand"], stock["committed"], stock["sellable"]) == (13, 3, 10)
    assert (await api.stock(sku, "eu"))["on_hand"] == 3


async def test_a_correction_below_what_is_promised(api: Api) -> None:
    """It is accepted with `shortfall: n` and stops new holds until it is healed."""
    sku = await api.stocked(5)
    await api.held(sku, 4)
    body = {"type": "adjustment", "sku": sku, "quantity": -3, "reason": "count"}
    answer = await api.post("/v1/movements", body, key="new")
    assert (answer.status_code, answer.json()["shortfall"]) == (201, 2)
    assert (await api.stock(sku))["sellable"] == -2
    one = {"lines": [{"sku": sku, "quantity": 1}]}
    assert (await api.post("/v1/holds", one, key="new")).json()["code"] == "insufficient-stock"
    await api.post("/v1/movements", {"type": "receipt", "sku": sku, "quantity": 3}, key="new")
    assert (await api.post("/v1/holds", one, key="new")).status_code == 201


async def test_availability(api: Api) -> None:
    """All pools of the SKUs asked for, those not known listed, and how old it may be."""
    sku = await api.stocked(5, pools={"eu": {"oversell_allowance": 2}})
    answer = await api.client.get("/v1/availability", params={"sku": [sku, "nobody", sku]})
    told = answer.json()
    assert told["items"] == [
        {"sku": sku, "pool": "default", "sellable": 5}, {"sku": sku, "pool": "eu", "sellable": 2},
    ]  # fmt: skip
    assert told["unknown"] == ["nobody"]
    assert (told["max_age_ms"], told["as_of"][-1]) == (250, "Z")
    assert "max-age" in answer.headers["cache-control"]


async def test_availability_is_never_older_than_it_says(api: Api) -> None:
    """A change shows at the latest after `max_age_ms`; until then the answer may be the old one."""
    sku = await api.stocked(5)
    await api.client.get("/v1/availability", params={"sku": sku})
    await api.held(sku, 2)
    await asyncio.sleep(0.26)
    assert (await api.client.get("/v1/availability", params={"sku": sku})).json()["items"][0]["sellable"] == 3


async def test_availability_not_modified(api: Api) -> None:
    """If-None-Match with the ETag of what is still true gets 304 without a body, whenever it was read."""
    sku = await api.stocked(5)

    async def look(**headers: str) -> httpx.Response:
        return await api.client.get("/v1/availability", params={"sku": sku}, headers=headers)

    etag = (await look()).headers["etag"]
    await asyncio.sleep(0.3)
    for tags in (etag, etag.removeprefix("W/"), f'"x", {etag}', "*"):
        same = await look(**{"If-None-Match": tags})
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", etag)
    assert (await look(**{"If-None-Match": '"x"'})).status_code == 200
    await api.held(sku)
    await asyncio.sleep(0.3)
    assert (await look(**{"If-None-Match": etag})).status_code == 200


async def test_availability_is_bounded(api: Api) -> None:
    """1 to 100 SKUs may be asked for."""
    assert (await api.client.get("/v1/availability")).status_code == 422
    for count, status in ((100, 200), (101, 422)):
        answer = await api.client.get("/v1/availability", params={"sku": [f"s{i}" for i in range(count)]})
        assert answer.status_code == status
