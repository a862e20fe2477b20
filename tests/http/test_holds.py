"""Holds over HTTP: the shapes and sentences of the contract."""

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.http.conftest import Api

pytestmark = pytest.mark.asyncio(loop_scope="module")

MEMBERS = {
    "id", "state", "lines", "buyer", "created_at", "expires_at", "ended_at", "reference", "reason",
    "reacquired", "metadata",
    "partition", "epoch", "seq",
}  # fmt: skip


def line(sku: str, quantity: int, **more: Any) -> dict[str, Any]:
    return {"sku": sku, "pool": "default", "quantity": quantity, "committed": 0, "released": 0, **more}


def instant(text: str) -> datetime:
    assert len(text) == len("2026-01-01T00:00:00.000Z")
    assert text.endswith("Z")
    return datetime.fromisoformat(text)


async def test_the_shape_of_a_hold(api: Api) -> None:
    """All members are there, null where they do not apply; a read shows the same."""
    sku = await api.stocked()
    body = {
        "lines": [{"sku": sku, "quantity": 2}],
        "buyer": "ann:{1}🛒",
        "ttl_seconds": 60,
        "metadata": {"z": [1, {"é": None}]},
    }
    answer = await api.post("/v1/holds", body, key="new")
    hold = answer.json()
    assert (answer.status_code, set(hold)) == (201, MEMBERS)
    assert hold["id"].startswith("hld_")
    assert hold["lines"] == [line(sku, 2)]
    assert (hold["state"], hold["buyer"], hold["metadata"]) == ("held", "ann:{1}🛒", {"z": [1, {"é": None}]})
    assert [hold[name] for name in ("ended_at", "reference", "reason")] == [None] * 3
    assert hold["reacquired"] is False
    assert instant(hold["expires_at"]) - instant(hold["created_at"]) == timedelta(seconds=60)
    assert (await api.client.get(f"/v1/holds/{hold['id']}")).json() == hold


async def test_a_hold_without_anything_optional(api: Api) -> None:
    """Defaults: ten minutes, no buyer, an empty metadata object."""
    hold = await api.held(await api.stocked())
    assert (hold["buyer"], hold["metadata"]) == (None, {})
    assert instant(hold["expires_at"]) - instant(hold["created_at"]) == timedelta(seconds=600)


async def test_all_lines_or_none(api: Api) -> None:
    """A cart with one short line takes nothing of the others."""
    full, short = await api.stocked(5), await api.stocked(1)
    body = {"lines": [{"sku": full, "quantity": 1}, {"sku": short, "quantity": 2}]}
    assert (await api.post("/v1/holds", body, key="new")).status_code == 409
    assert (await api.stock(full))["held"] == 0


async def test_partial_holds_say_what_was_requested(api: Api) -> None:
    """Each line gets what is left and says `requested`, also in a later read; one with nothing at all is refused."""
    some, none = await api.stocked(3), await api.stocked(0, safety_stock=0)
    body = {"lines": [{"sku": some, "quantity": 5}, {"sku": none, "quantity": 2}], "allow_partial": True}
    hold = (await api.post("/v1/holds", body, key="new")).json()
    assert hold["lines"] == [line(some, 3, requested=5), line(none, 0, requested=2)]
    assert (await api.client.get(f"/v1/holds/{hold['id']}")).json()["lines"] == hold["lines"]
    assert (await api.post("/v1/holds", body, key="new")).json()["code"] == "insufficient-stock"


async def test_a_partial_hold_that_got_all_says_so(api: Api) -> None:
    """`requested` is there in every answer to `allow_partial`, also where it equals `quantity`."""
    sku = await api.stocked(5)
    hold = await api.held(sku, 2, allow_partial=True)
    assert hold["lines"] == [line(sku, 2, requested=2)]


async def test_commit_in_part(api: Api) -> None:
    """With lines, that much is sold and the rest released in the same step; more than held is 422."""
    a, b = await api.stocked(), await api.stocked()
    body = {"lines": [{"sku": a, "quantity": 3}, {"sku": b, "quantity": 1}]}
    hold = (await api.post("/v1/holds", body, key="new")).json()
    path = f"/v1/holds/{hold['id']}/commit"
    too_much = await api.post(path, {"lines": [{"sku": a, "quantity": 4}]})
    assert (too_much.status_code, too_much.json()["code"]) == (422, "invalid-request")
    sold = (await api.post(path, {"lines": [{"sku": a, "quantity": 2}], "reference": "o"})).json()
    assert sold["lines"] == [line(a, 3, committed=2, released=1), line(b, 1, released=1)]
    assert (sold["state"], sold["reference"]) == ("committed", "o")
    assert instant(sold["ended_at"]) >= instant(sold["created_at"])
    assert (await api.stock(a))["committed"] == 2
    assert (await api.stock(b))["sellable"] == 10


async def test_release_keeps_the_reason(api: Api) -> None:
    """A release frees the units and remembers why."""
    sku = await api.stocked()
    hold = await api.held(sku, 4)
    released = (await api.post(f"/v1/holds/{hold['id']}/release", {"reason": "changed mind"})).json()
    assert (released["state"], released["reason"]) == ("released", "changed mind")
    assert released["lines"] == [line(sku, 4, released=4)]
    assert (await api.stock(sku))["sellable"] == 10


async def test_extend_never_shortens(api: Api) -> None:
    """The deadline becomes the later of the present one and now + ttl, bounded by the longest life."""
    sku = await api.stocked(5, hold_ttl_seconds_max=100)
    hold = await api.held(sku, ttl_seconds=50)
    path = f"/v1/holds/{hold['id']}/extend"
    assert (await api.post(path, {"ttl_seconds": 1})).json()["expires_at"] == hold["expires_at"]
    most = (await api.post(path, {"ttl_seconds": 10_000})).json()
    assert instant(most["expires_at"]) - instant(most["created_at"]) == timedelta(seconds=100)
    assert (await api.post(path, {})).status_code == 422


async def test_amend(api: Api) -> None:
    """Lines come and go, the hold's own units not counted against it, the deadline unchanged; short changes nothing."""
    a, b = await api.stocked(5), await api.stocked(5)
    hold = await api.held(a, 4)
    path = f"/v1/holds/{hold['id']}/amend"
    wanted = {"lines": [{"sku": a, "quantity": 5}, {"sku": b, "quantity": 2}]}
    amended = (await api.post(path, wanted)).json()
    assert amended["lines"] == [line(a, 5), line(b, 2)]
    assert amended["expires_at"] == hold["expires_at"]
    short = await api.post(path, {"lines": [{"sku": b, "quantity": 6}]})
    assert short.json()["code"] == "insufficient-stock"
    assert short.json()["lines"] == [{"sku": b, "pool": "default", "requested": 6, "sellable": 5}]
    assert (await api.client.get(f"/v1/holds/{hold['id']}")).json() == amended
    assert (await api.post(path, wanted)).json() == amended
    moved = (await api.post(path, {"lines": [{"sku": b, "quantity": 1}]})).json()
    assert moved["lines"] == [line(b, 1)]
    assert (await api.stock(a))["held"] == 0


async def test_expiry_and_reacquire(api: Api) -> None:
    """From its deadline on a hold counts nowhere; `reacquire` takes it again if the stock is still there."""
    sku = await api.stocked(2)
    first, second = await api.held(sku, 1, ttl_seconds=1), await api.held(sku, 1, ttl_seconds=1)
    await asyncio.sleep(1.05)
    stock = await api.stock(sku)
    assert (stock["held"], stock["sellable"]) == (0, 2)
    assert (await api.client.get(f"/v1/holds/{first['id']}")).json()["state"] == "expired"
    path = f"/v1/holds/{first['id']}/commit"
    assert (await api.post(path, {"if_expired": "reject"})).json()["code"] == "hold-expired"
    assert (await api.post(f"/v1/holds/{first['id']}/release")).json()["code"] == "hold-expired"
    again = (await api.post(path, {"if_expired": "reacquire"})).json()
    assert (again["state"], again["reacquired"]) == ("committed", True)
    await api.held(sku, 1)
    late = await api.post(f"/v1/holds/{second['id']}/commit", {"if_expired": "reacquire"})
    assert late.json()["code"] == "insufficient-stock"


async def test_a_limit_needs_a_buyer(api: Api) -> None:
    """422 without a buyer on a SKU with a limit; release gives the share back."""
    sku = await api.stocked(10, max_per_buyer=1)
    body = {"lines": [{"sku": sku, "quantity": 1}]}
    answer = await api.post("/v1/holds", body, key="new")
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "buyer")
    hold = await api.held(sku, buyer="ann")
    assert (await api.post("/v1/holds", {**body, "buyer": "ann"}, key="new")).status_code == 409
    await api.post(f"/v1/holds/{hold['id']}/release")
    assert (await api.post("/v1/holds", {**body, "buyer": "ann"}, key="new")).status_code == 201


async def test_every_answer_says_where(api: Api) -> None:
    """Mutating answers carry partition, epoch and a seq that only grows; refusals and replays write no entry."""
    sku = await api.stocked()
    before = (await api.stock(sku))["seq"]
    hold = await api.held(sku)
    assert hold["seq"] == before + 1
    body = {"lines": [{"sku": sku, "quantity": 100}]}
    refused = (await api.post("/v1/holds", body, key="new")).json()
    sold = (await api.post(f"/v1/holds/{hold['id']}/commit")).json()
    await api.post(f"/v1/holds/{hold['id']}/commit")
    policy = (await api.client.patch(f"/v1/skus/{sku}", json={"safety_stock": 1})).json()
    entry = (await api.post("/v1/movements", {"type": "receipt", "sku": sku, "quantity": 1}, key="new")).json()
    assert [one["seq"] - before for one in (sold, policy, entry)] == [2, 3, 4]
    assert {(one["partition"], one["epoch"]) for one in (hold, refused, sold, policy, entry)} == {("p00", 1)}
