"""The ledger and the holds in it as a client reads them, with the write-behind at work."""

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
import redis

from flashhold.domain.idempotency import parse_hold_id
from flashhold.engine.keys import partition_keys
from flashhold.services.gauges import WorkerGauges
from flashhold.worker import write_behind_of
from tests.http.conftest import Api, running_api, valkey

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(redis_servers: Callable[[str], str], module_database_url: str) -> AsyncIterator[Api]:
    """An API whose journal is carried into the ledger."""
    async with running_api(valkey(redis_servers), module_database_url) as running:
        writing = write_behind_of(running.settings, WorkerGauges(), "p00")
        thread = threading.Thread(target=writing.run)
        thread.start()
        yield running
        writing.stop()
        await asyncio.to_thread(thread.join)


async def get(api: Api, path: str, **asked: Any) -> dict[str, Any]:
    answer = await api.client.get(path, params=asked)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def written(api: Api, place: dict[str, Any]) -> None:
    """Wait until the ledger has come to an answer's place."""
    async with asyncio.timeout(20):
        while True:
            page = await get(api, "/v1/ledger", partition=place["partition"], limit=1000)
            while page["next_cursor"]:
                page = await get(api, "/v1/ledger", limit=1000, cursor=page["next_cursor"])
            if page["items"] and page["items"][-1]["seq"] >= place["seq"]:
                return
            await asyncio.sleep(0.05)


async def test_a_movement_answers_with_its_entry(api: Api) -> None:
    """What a movement was answered with is what the ledger shows."""
    sku = f"m-{uuid.uuid4().hex[:8]}"
    body = {"type": "receipt", "sku": sku, "quantity": 5, "pool": "eu", "reference": "r{1}", "reason": "é"}
    answered = (await api.post("/v1/movements", body, key="new")).json()
    await written(api, answered)
    (entry,) = (await get(api, "/v1/ledger", sku=sku))["items"]
    assert {name: entry[name] for name in answered} == answered
    assert set(entry) - set(answered) <= {"details"}


async def test_the_story_of_a_hold(api: Api) -> None:
    """A hold's entries in order, each with the place that its answer carried."""
    sku = await api.stocked()
    hold = await api.held(sku, 3, buyer="ann")
    path = f"/v1/holds/{hold['id']}"
    extended = (await api.post(f"{path}/extend", {"ttl_seconds": 5000})).json()
    sold = (await api.post(f"{path}/commit", {"reference": "o-1", "lines": [{"sku": sku, "quantity": 2}]})).json()
    await written(api, sold)
    page = await get(api, "/v1/ledger", hold=hold["id"])
    assert [(entry["kind"], entry["seq"]) for entry in page["items"]] == [
        ("hold", hold["seq"]), ("extend", extended["seq"]), ("commit", sold["seq"]),
    ]  # fmt: skip
    for entry in page["items"]:
        assert sum(posting["quantity"] for posting in entry["postings"]) == 0
        assert (entry["hold"], entry["buyer"]) == (hold["id"], "ann")
    assert page["items"][1]["expires_at"] == extended["expires_at"]
    assert page["items"][2]["reference"] == "o-1"
    assert (await get(api, "/v1/ledger", hold=hold["id"], kind="commit"))["items"] == page["items"][2:]


async def test_pages_skip_and_repeat_nothing(api: Api) -> None:
    """Reading to the end in small pages while writes go on gives each entry once, in order."""
    sku = await api.stocked(500)
    await asyncio.gather(*(api.held(sku) for _ in range(20)))
    seen: list[int] = []
    cursor: dict[str, str] = {}
    last = await api.held(sku)
    await written(api, last)
    for _ in range(100):
        page = await get(api, "/v1/ledger", sku=sku, limit=3, **cursor)
        seen += [entry["seq"] for entry in page["items"]]
        await api.held(sku)
        if seen and seen[-1] >= last["seq"]:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert seen == sorted(set(seen))
    assert len(seen) >= 22


async def test_holds_from_the_ledger(api: Api) -> None:
    """Holds by buyer, SKU and state, shaped as everywhere else; an overdue one reads as expired."""
    sku, buyer = await api.stocked(), f"b:{uuid.uuid4().hex[:6]}🛒"
    sold, kept, late = [await api.held(sku, buyer=buyer, ttl_seconds=ttl, metadata={"n": [1]}) for ttl in (60, 60, 1)]
    sold = (await api.post(f"/v1/holds/{sold['id']}/commit")).json()
    await written(api, sold)
    await asyncio.sleep(1.1)
    page = await get(api, "/v1/holds", buyer=buyer)
    assert [(hold["id"], hold["state"]) for hold in page["items"]] == [
        (sold["id"], "committed"), (kept["id"], "held"), (late["id"], "expired"),
    ]  # fmt: skip
    assert page["items"][:2] == [sold, kept]
    assert page["as_of"].endswith("Z")
    for state, hold in (("committed", sold), ("held", kept), ("expired", late)):
        (found,) = (await get(api, "/v1/holds", buyer=buyer, state=state, sku=sku))["items"]
        assert found["id"] == hold["id"]
    assert (await get(api, "/v1/holds", buyer=buyer, sku="other"))["items"] == []


async def test_a_forgotten_hold_is_read_from_the_ledger(api: Api) -> None:
    """A hold that Redis has purged is answered from the ledger, member for member as before."""
    sku = await api.stocked()
    hold = await api.held(sku, 2, buyer="ann", metadata={"b": {"c": 1.5}, "a": "é"})
    sold = (await api.post(f"/v1/holds/{hold['id']}/commit", {"reference": "o"})).json()
    await written(api, sold)
    parsed = parse_hold_id(hold["id"])
    assert parsed is not None
    with redis.Redis.from_url(api.settings.redis_url) as client:
        assert client.hdel(partition_keys("p00").holds, parsed[1]) == 1
    assert await get(api, f"/v1/holds/{hold['id']}") == sold


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=1001", "limit=x", "limit=-1", "cursor=nonsense", "cursor=%00", "sku=%00", "hold=%0A",
     "kind=gift", "buyer=%7F",
     "state=lost", "sku=" + "x" * 129, "cursor=" + "A" * 3000, "sku=%FF", "cursor=gaNwMDCSz4AAAAAAAAAAz4AAAAAAAAAA"],
)  # fmt: skip
async def test_queries_that_make_no_sense(api: Api, query: str) -> None:
    """422 with the field for a query parameter that can't be; those that a list doesn't have are ignored."""
    named = query.split("=", 1)[0]
    for path in ("/v1/ledger", "/v1/holds"):
        answer = await api.client.get(f"{api.url}{path}?{query}")
        known = named in ("limit", "cursor", "sku") or (named in ("hold", "kind")) == (path == "/v1/ledger")
        if known:
            assert (answer.status_code, answer.json()["code"]) == (422, "invalid-request"), path
            assert answer.json()["errors"][0]["field"] == named or "%FF" in query
        else:
            assert answer.status_code == 200, (path, answer.text)


async def test_empty_query_parameters_are_not_given(api: Api) -> None:
    """`?buyer=&sku=` asks for everything, as a form would send it."""
    assert (await get(api, "/v1/holds?buyer=&sku=&state=&cursor="))["items"]
    assert (await get(api, "/v1/ledger?sku=&hold=&kind=&partition=&cursor="))["items"]


async def forgotten(api: Api, hold: dict[str, Any]) -> None:
    """Redis purges the hold; by then the ledger has long had all that happened to it."""
    parsed = parse_hold_id(hold["id"])
    assert parsed is not None
    await written(api, (await api.client.get(f"/v1/holds/{hold['id']}")).json())
    with redis.Redis.from_url(api.settings.redis_url) as store:
        assert store.hdel(partition_keys("p00").holds, parsed[1]) == 1


@pytest.mark.parametrize("path", ["/v1/movements", "/v1/movements?"], ids=["hot", "cold"])
async def test_a_forgotten_hold_can_still_be_given_back(api: Api, path: str) -> None:
    """A cancel or return long after the sale gives the buyer's share back, each unit once."""
    sku = await api.stocked(10, max_per_buyer=3)
    hold = await api.held(sku, 3, buyer="ann")
    sold = (await api.post(f"/v1/holds/{hold['id']}/commit", {"reference": "order"})).json()
    await forgotten(api, hold)
    cancel = {"type": "cancel", "sku": sku, "quantity": 1, "hold": hold["id"]}
    key = uuid.uuid4().hex
    first = await api.post(path, cancel, key=key)
    assert first.status_code == 201, first.text
    assert (first.json()["buyer"], first.json()["hold"]) == ("ann", hold["id"])
    assert first.headers["idempotency-replayed"] == "false"
    again = await api.post(path, cancel, key=key)
    assert (again.content, again.headers["idempotency-replayed"]) == (first.content, "true")
    assert (await api.client.get(f"/v1/holds/{hold['id']}")).json() == sold
    await written(api, first.json())
    await forgotten(api, hold)
    back = {**cancel, "type": "return"}
    assert (await api.post(path, {**back, "quantity": 3}, key="new")).json()["code"] == "movement-refused"
    assert (await api.post(path, {**back, "quantity": 2}, key="new")).status_code == 201
    assert (await api.post(path, back, key="new")).json()["code"] == "movement-refused"
    assert (await api.held(sku, 3, buyer="ann"))["state"] == "held"


async def test_forgotten_and_raced(api: Api) -> None:
    """Many returns of one forgotten unit at once: one is taken."""
    sku = await api.stocked(5)
    hold = await api.held(sku, 1)
    await api.post(f"/v1/holds/{hold['id']}/commit")
    await forgotten(api, hold)
    body = {"type": "return", "sku": sku, "quantity": 1, "hold": hold["id"]}
    answers = await asyncio.gather(*(api.post("/v1/movements", body, key="new") for _ in range(12)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 11


async def test_a_hold_that_nobody_knows_is_refused_for_good(api: Api) -> None:
    """Where the ledger does not know it either, 404; where it was never sold, as for one not forgotten. Both stick."""
    sku = await api.stocked(5)
    dropped = await api.held(sku, 1)
    await api.post(f"/v1/holds/{dropped['id']}/release")
    await forgotten(api, dropped)
    for name, code in {"hld_00AAAAAAAAAAAAAA1": "unknown-hold", dropped["id"]: "movement-refused"}.items():
        body, key = {"type": "return", "sku": sku, "quantity": 1, "hold": name}, uuid.uuid4().hex
        first, again = [await api.post("/v1/movements", body, key=key) for _ in range(2)]
        assert first.json()["code"] == again.json()["code"] == code
        assert first.headers["idempotency-replayed"] == "false"
        assert again.headers["idempotency-replayed"] == "true"


async def test_a_forgotten_hold_does_not_take_the_place_of_another(api: Api) -> None:
    """Its key may have made another hold since: that one stays what it is."""
    sku, key = await api.stocked(5), uuid.uuid4().hex
    body = {"lines": [{"sku": sku, "quantity": 1}]}
    old = (await api.post("/v1/holds", body, key=key)).json()
    await api.post(f"/v1/holds/{old['id']}/commit")
    await forgotten(api, old)
    young = (await api.post("/v1/holds", body, key=key)).json()
    back = {"type": "return", "sku": sku, "quantity": 1, "hold": old["id"]}
    assert (await api.post("/v1/movements", back, key="new")).json()["code"] == "unknown-hold"
    assert (await api.client.get(f"/v1/holds/{young['id']}")).json() == young
