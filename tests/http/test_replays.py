"""What sticks to an idempotency key, and what doesn't."""

import asyncio
import uuid
from typing import Any, NamedTuple

import httpx
import pytest

from tests.http.conftest import Api

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Seen(NamedTuple):
    """What a client sees of an answer."""

    status: int
    content: bytes
    location: str | None
    replayed: str


def seen(answer: httpx.Response) -> Seen:
    headers = answer.headers
    return Seen(answer.status_code, answer.content, headers.get("location"), headers["idempotency-replayed"])


def repeated(first: httpx.Response) -> Seen:
    """What a repetition must look like: the first answer byte for byte, and it says so."""
    assert first.headers["idempotency-replayed"] == "false"
    return seen(first)._replace(replayed="true")


async def twice(api: Api, path: str, body: Any, method: str = "POST") -> httpx.Response:
    """Ask twice with one key; the first answer, once the second has been compared with it."""
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    first = await api.client.request(method, path, json=body, headers=headers)
    assert seen(await api.client.request(method, path, json=body, headers=headers)) == repeated(first)
    return first


async def test_an_accepted_answer_sticks(api: Api) -> None:
    """Every mutating verb repeats its first answer under its key, and acts once."""
    sku = await api.stocked(20)
    first = await twice(api, "/v1/holds", {"lines": [{"sku": sku, "quantity": 2}], "metadata": {"b": 1, "a": [1.5]}})
    assert first.status_code == 201
    path = first.headers["location"]
    assert path == f"/v1/holds/{first.json()['id']}"
    for verb, body in (
        ("extend", {"ttl_seconds": 1000}),
        ("amend", {"lines": [{"sku": sku, "quantity": 3}]}),
        ("commit", {"reference": "order"}),
    ):
        assert (await twice(api, f"{path}/{verb}", body)).status_code == 200
    shipment = {"type": "shipment", "sku": sku, "quantity": 3}
    assert (await twice(api, "/v1/movements", shipment)).status_code == 201
    assert (await twice(api, f"/v1/skus/{sku}", {"safety_stock": 1}, "PATCH")).status_code == 200
    assert (await twice(api, f"/v1/skus/{sku}", {"safety_stock": 2}, "PUT")).status_code == 200
    stock = await api.stock(sku)
    assert (stock["on_hand"], stock["held"], stock["committed"], stock["safety_stock"]) == (17, 0, 0, 2)


async def test_a_hold_replays_as_it_was_made(api: Api) -> None:
    """The first answer to a hold sticks although the hold has been sold since."""
    sku = await api.stocked()
    body, key = {"lines": [{"sku": sku, "quantity": 1}]}, uuid.uuid4().hex
    first = await api.post("/v1/holds", body, key=key)
    await api.post(f"{first.headers['location']}/commit")
    assert seen(await api.post("/v1/holds", body, key=key)) == repeated(first)
    assert first.json()["state"] == "held"


async def test_a_refused_answer_sticks(api: Api) -> None:
    """A 404 or 409 is repeated under its key although it would be accepted by now."""
    sku = f"late-{uuid.uuid4().hex[:8]}"
    body, keys = {"lines": [{"sku": sku, "quantity": 1}]}, [uuid.uuid4().hex, uuid.uuid4().hex]
    unknown = await api.post("/v1/holds", body, key=keys[0])
    await api.client.put(f"/v1/skus/{sku}", json={})
    short = await api.post("/v1/holds", body, key=keys[1])
    assert (unknown.json()["code"], short.json()["code"]) == ("unknown-sku", "insufficient-stock")
    await api.post("/v1/movements", {"type": "receipt", "sku": sku, "quantity": 5}, key="new")
    assert seen(await api.post("/v1/holds", body, key=keys[0])) == repeated(unknown)
    assert seen(await api.post("/v1/holds", body, key=keys[1])) == repeated(short)
    assert (await api.post("/v1/holds", body, key="new")).status_code == 201


async def test_refusals_on_a_hold_stick(api: Api) -> None:
    """A refused commit, release, movement or policy is repeated under its key."""
    sku = await api.stocked(5)
    hold = await api.held(sku)
    await api.post(f"/v1/holds/{hold['id']}/release")
    for verb, body in (
        ("commit", {}),
        ("extend", {"ttl_seconds": 9}),
        ("amend", {"lines": [{"sku": sku, "quantity": 1}]}),
    ):
        assert (await twice(api, f"/v1/holds/{hold['id']}/{verb}", body)).json()["code"] == "hold-released"
    refused = await twice(api, "/v1/movements", {"type": "shipment", "sku": sku, "quantity": 1})
    assert refused.json()["code"] == "movement-refused"
    assert (await twice(api, f"/v1/skus/{sku}", {"partition_key": "x"}, "PATCH")).json()["code"] == "policy-refused"


async def test_failed_validation_does_not_stick(api: Api) -> None:
    """A key may be used again after a 400, 413, 415 or 422 that came before the decision, or in it."""
    sku = await api.stocked(5, hold_ttl_seconds_max=60)
    key = uuid.uuid4().hex
    good = {"lines": [{"sku": sku, "quantity": 1}]}
    headers = {"Content-Type": "application/json"}
    for status, sent in (
        (400, {"content": b"{", "headers": headers}),
        (413, {"content": b" " * 70_000, "headers": headers}),
        (415, {"content": b"{}", "headers": {"Content-Type": "text/plain"}}),
        (422, {"body": {"lines": []}}),
        (422, {"body": {**good, "ttl_seconds": 61}}),
    ):
        assert (await api.post("/v1/holds", key=key, **sent)).status_code == status  # type: ignore[arg-type]  # a mixed table
    answer = await api.post("/v1/holds", good, key=key)
    assert (answer.status_code, answer.headers["idempotency-replayed"]) == (201, "false")


async def test_a_known_key_never_answers_a_malformed_request(api: Api) -> None:
    """What is malformed itself is told so, though its key has an answer; who has no key or no scope, likewise."""
    sku = await api.stocked()
    body, key = {"lines": [{"sku": sku, "quantity": 1}]}, uuid.uuid4().hex
    await api.post("/v1/holds", body, key=key)
    headers = {"Content-Type": "application/json"}
    assert (await api.post("/v1/holds", key=key, content=b"{", headers=headers)).status_code == 400
    assert (await api.post("/v1/holds", {"lines": []}, key=key)).json()["code"] == "invalid-request"
    assert (await api.post("/v1/holds", body, key=key, headers={"Authorization": "Bearer x"})).status_code == 401
    assert (await api.post("/v1/holds", body, key=key, headers=api.key("read"))).status_code == 403
    assert (await api.post("/v1/holds", body, key=key)).headers["idempotency-replayed"] == "true"


async def test_one_name_space_for_keys(api: Api) -> None:
    """The same key on another route or hold, or with another meaning, is another payload; whose it is, is no matter."""
    sku = await api.stocked(20)
    key = uuid.uuid4().hex
    body = {"lines": [{"sku": sku, "quantity": 1}]}
    first = await api.post("/v1/holds", body, key=key)
    assert (await api.post("/v1/holds", body, key=key, headers=api.key("holds"))).headers[
        "idempotency-replayed"
    ] == "true"
    one, two = await api.held(sku), await api.held(sku)
    other = uuid.uuid4().hex
    assert (await api.post(f"/v1/holds/{one['id']}/release", key=other)).status_code == 200
    for path, sent, used in (
        ("/v1/movements", {"type": "receipt", "sku": sku, "quantity": 1}, key),
        (f"/v1/holds/{first.json()['id']}/commit", {}, key),
        ("/v1/holds", {**body, "buyer": "ann"}, key),
        ("/v1/holds", {**body, "ttl_seconds": 600}, key),
        ("/v1/holds", {**body, "allow_partial": True}, key),
        ("/v1/holds", {**body, "metadata": {"a": 1}}, key),
        (f"/v1/holds/{two['id']}/release", {}, other),
        (f"/v1/holds/{one['id']}/release", {"reason": "x"}, other),
        ("/v1/holds", body, other),
    ):
        answer = await api.post(path, sent, key=used)
        assert (answer.status_code, answer.json()["code"]) == (422, "idempotency-key-reused"), path
    assert (await api.stock(sku))["held"] == 2


async def test_equal_meanings_are_one_payload(api: Api) -> None:
    """Member order, white space, escapes, nulls and defaults don't matter to a repeated key."""
    sku = await api.stocked()
    key, headers = uuid.uuid4().hex, {"Content-Type": "application/json"}
    first = await api.post("/v1/holds", {"lines": [{"sku": sku, "quantity": 1}]}, key=key)
    for text in (
        f'{{ "lines" : [ {{"quantity":1, "sku":"{sku}"}} ] }}\n',
        f'{{"lines":[{{"sku":"{sku}","quantity":1,"pool":"default"}}],"buyer":null}}',
        f'{{"metadata":{{}},"allow_partial":false,"ttl_seconds":null,"lines":[{{"sku":"\\u0073{sku[1:]}","quantity":1,"pool":null}}]}}',
    ):
        assert seen(await api.post("/v1/holds", key=key, content=text.encode(), headers=headers)) == repeated(first)


@pytest.mark.parametrize("different", [False, True])
async def test_one_key_raced(api: Api, different: bool) -> None:
    """A key sent many times at once acts once; where payloads differ, one of them wins and the others get 422."""
    sku = await api.stocked(100)
    key = uuid.uuid4().hex
    bodies = [{"lines": [{"sku": sku, "quantity": 1 + (i % 2) * different}]} for i in range(40)]
    answers = await asyncio.gather(*(api.post("/v1/holds", body, key=key) for body in bodies))
    accepted = [answer for answer in answers if answer.status_code == 201]
    refused = [answer for answer in answers if answer.status_code == 422]
    assert len(accepted) == (20 if different else 40)
    assert len(accepted) + len(refused) == 40
    assert {answer.json()["code"] for answer in refused} <= {"idempotency-key-reused"}
    assert len({answer.content for answer in accepted}) == 1
    assert [answer.headers["idempotency-replayed"] for answer in accepted].count("false") == 1
    assert (await api.stock(sku))["held"] == accepted[0].json()["lines"][0]["quantity"]


async def test_a_hold_raced_without_keys(api: Api) -> None:
    """Of many buyers of the last unit one gets it, and every other one is told how much there was."""
    sku = await api.stocked(1)
    body = {"lines": [{"sku": sku, "quantity": 1}]}
    answers = await asyncio.gather(*(api.post("/v1/holds", body, key="new") for _ in range(40)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 39
    assert all(answer.json()["lines"][0]["sellable"] == 0 for answer in answers if answer.status_code == 409)


async def test_commit_and_release_repeat_without_a_key(api: Api) -> None:
    """The same commit or release again is the same answer; another one is refused."""
    sku = await api.stocked()
    sold, dropped = await api.held(sku, 2), await api.held(sku)
    commit = f"/v1/holds/{sold['id']}/commit"
    first = await api.post(commit, {"reference": "o-1"})
    assert seen(await api.post(commit, {"reference": "o-1"})) == repeated(first)
    assert seen(await api.post(commit, {"reference": "o-1", "lines": [{"sku": sku, "quantity": 2}]})) == repeated(first)
    for other in ({"reference": "o-2"}, {}, {"reference": "o-1", "lines": [{"sku": sku, "quantity": 1}]}):
        assert (await api.post(commit, other)).json()["code"] == "already-committed"
    release = f"/v1/holds/{dropped['id']}/release"
    dropping = await api.post(release, {"reason": "x"})
    assert seen(await api.post(release, {"reason": "y"})) == repeated(dropping)
