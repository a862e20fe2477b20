"""Every row of the contract's table of errors, as a client sees it."""

import asyncio
from typing import Any

import httpx
import pytest

from flashhold.http.problems import KINDS, TYPE_PREFIX
from tests.http.conftest import Api

pytestmark = pytest.mark.asyncio(loop_scope="module")


PLACE = {"epoch", "partition", "seq"}
"""What every refusal carries: where in the ledger's order it was decided."""


def problem(answer: httpx.Response, code: str) -> dict[str, Any]:
    """The problem's members, after everything that all problems share has been checked."""
    told: dict[str, Any] = answer.json()
    kind = KINDS[code]
    assert answer.headers["content-type"] == "application/problem+json"
    assert told.pop("type") == TYPE_PREFIX + code
    assert told.pop("code") == code
    assert told.pop("title") == kind.title
    assert told.pop("status") == answer.status_code == kind.status
    assert told.pop("detail")
    return told


async def test_malformed_json(api: Api) -> None:
    """400 for a body that is no JSON."""
    headers = {"Content-Type": "application/json"}
    assert problem(await api.post("/v1/holds", key="new", content=b"{", headers=headers), "malformed-json") == {}


async def test_idempotency_key_missing(api: Api) -> None:
    """400 without a key, where one is required: holds and movements."""
    sku = await api.stocked()
    hold = {"lines": [{"sku": sku, "quantity": 1}]}
    assert problem(await api.post("/v1/holds", hold), "idempotency-key-missing") == {}
    move = {"type": "receipt", "sku": sku, "quantity": 1}
    assert problem(await api.post("/v1/movements", move), "idempotency-key-missing") == {}
    assert (await api.stock(sku))["on_hand"] == 10


@pytest.mark.parametrize("key", ["", "x" * 256, "a b", "a\tb", "ü"])
async def test_idempotency_key_invalid(api: Api, key: str) -> None:
    """400 for a key that is empty, too long, or not visible ASCII; on every verb."""
    body = {"lines": [{"sku": "any", "quantity": 1}]}
    headers = [(b"Idempotency-Key", key.encode())]
    for path in ("/v1/holds", "/v1/holds/hld_x/commit", "/v1/holds/hld_x/release"):
        sent = body if path == "/v1/holds" else {}
        answer = await api.client.post(path, json=sent, headers=headers)  # type: ignore[arg-type]  # bytes are fine
        assert problem(answer, "idempotency-key-invalid") == {}


async def test_two_idempotency_keys(api: Api) -> None:
    """400 for two headers of that name, the same value or not: which one would be remembered?"""
    body = {"lines": [{"sku": "any", "quantity": 1}]}
    for keys in (("a", "b"), ("a", "a"), ("a", ""), ("a", "b", "c")):
        headers = [("Idempotency-Key", key) for key in keys]
        assert problem(await api.client.post("/v1/holds", json=body, headers=headers), "idempotency-key-invalid") == {}


@pytest.mark.parametrize("key", ["!", "~" * 255, "%00", '"quoted"', "{p00}", "a,b", "../.."])
async def test_every_visible_ascii_key_is_valid(api: Api, key: str) -> None:
    """1-255 visible ASCII characters are a key, whatever they look like."""
    sku = await api.stocked()
    answer = await api.post("/v1/holds", {"lines": [{"sku": sku, "quantity": 1}]}, key=key)
    assert answer.status_code == 201


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Basic abc", "Bearer x", "Bearer fh_", "Bearer fh_0123456789ab_", "Bearer fh_a_b", "fh_a_b",
     "Bearer " + "x" * 5000],
)  # fmt: skip
@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/holds"), ("GET", "/v1/holds"), ("PUT", "/v1/skus/a")])
async def test_unauthenticated(api: Api, authorization: str | None, method: str, path: str) -> None:
    """401 with `WWW-Authenticate: Bearer` without a valid key, on hot and cold routes, before all other checks."""
    headers = {} if authorization is None else {"Authorization": authorization}
    async with httpx.AsyncClient(base_url=api.url) as nobody:
        answer = await nobody.request(method, path, content=b"{", headers=headers)
    assert problem(answer, "unauthenticated") == {}
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_wrong_secret_of_a_known_key(api: Api) -> None:
    """401 where only the secret is wrong, in its last character or in all but none."""
    for wrong in (
        api.admin_key[:-1] + ("A" if api.admin_key[-1] != "A" else "B"),
        api.admin_key[:16],
        api.admin_key + "x",
    ):
        headers = {"Authorization": f"Bearer {wrong}"}
        assert problem(await api.client.get("/v1/holds", headers=headers), "unauthenticated") == {}


async def test_unknown_sku(api: Api) -> None:
    """404 for a SKU that nothing has made known, in a hold, a movement and a read."""
    hold = {"lines": [{"sku": "nobody", "quantity": 1}]}
    told = problem(await api.post("/v1/holds", hold, key="new"), "unknown-sku")
    assert (told["sku"], sorted(told)) == ("nobody", ["epoch", "partition", "seq", "sku"])
    move = {"type": "shipment", "sku": "nobody", "quantity": 1}
    assert problem(await api.post("/v1/movements", move, key="new"), "unknown-sku")["sku"] == "nobody"
    assert problem(await api.client.get("/v1/skus/nobody"), "unknown-sku")["sku"] == "nobody"


@pytest.mark.parametrize(
    "hold", ["hld_00AAAAAAAAAAAAAA1", "hld_", "nonsense", "%F0%9F%9B%92", "hld_00AAAAAAAAAAAAAA" + "f" * 14]
)
async def test_unknown_hold(api: Api, hold: str) -> None:
    """404 for a hold that is not there, whatever its id looks like."""
    for verb, body in (("commit", {}), ("release", {}), ("extend", {"ttl_seconds": 5})):
        assert problem(await api.post(f"/v1/holds/{hold}/{verb}", body), "unknown-hold").keys() == PLACE
    lines = {"lines": [{"sku": "a", "quantity": 1}]}
    assert problem(await api.post(f"/v1/holds/{hold}/amend", lines), "unknown-hold").keys() == PLACE
    assert problem(await api.client.get(f"/v1/holds/{hold}"), "unknown-hold").keys() == PLACE


async def test_insufficient_stock_names_every_short_line(api: Api) -> None:
    """409 with `lines`, one for each that is short; lines of one SKU add up; nothing is taken."""
    short, enough = await api.stocked(5), await api.stocked(5)
    lines = [{"sku": short, "quantity": 3}, {"sku": enough, "quantity": 5}, {"sku": short, "quantity": 3}]
    told = problem(await api.post("/v1/holds", {"lines": lines}, key="new"), "insufficient-stock")
    assert told["lines"] == [{"sku": short, "pool": "default", "requested": 6, "sellable": 5}]
    other = {"lines": [{"sku": enough, "quantity": 1, "pool": "eu"}]}
    told = problem(await api.post("/v1/holds", other, key="new"), "insufficient-stock")
    assert told["lines"] == [{"sku": enough, "pool": "eu", "requested": 1, "sellable": 0}]
    assert (await api.stock(enough))["held"] == 0


async def test_purchase_limit_exceeded(api: Api) -> None:
    """409 with the limit and what the buyer has already."""
    sku = await api.stocked(10, max_per_buyer=3)
    await api.held(sku, 2, buyer="ann")
    body = {"lines": [{"sku": sku, "quantity": 2}], "buyer": "ann"}
    told = problem(await api.post("/v1/holds", body, key="new"), "purchase-limit-exceeded")
    assert (told["sku"], told["limit"], told["already"]) == (sku, 3, 2)


async def test_sale_windows(api: Api) -> None:
    """409 before a sale opens and after it has closed, with the instant."""
    soon = await api.stocked(10, opens_at="2999-01-01T01:00:00+01:00")
    body = {"lines": [{"sku": soon, "quantity": 1}]}
    told = problem(await api.post("/v1/holds", body, key="new"), "sale-not-open")
    assert (told["sku"], told["opens_at"]) == (soon, "2999-01-01T00:00:00.000Z")
    over = await api.stocked(10, closes_at="2001-01-01T00:00:00.250Z")
    body = {"lines": [{"sku": over, "quantity": 1}]}
    told = problem(await api.post("/v1/holds", body, key="new"), "sale-closed")
    assert (told["sku"], told["closes_at"]) == (over, "2001-01-01T00:00:00.250Z")


async def test_final_states(api: Api) -> None:
    """409 by the hold's final state: expired, released, committed."""
    sku = await api.stocked(10)
    expired = await api.held(sku, ttl_seconds=1)
    released, committed = await api.held(sku), await api.held(sku)
    await api.post(f"/v1/holds/{released['id']}/release")
    await api.post(f"/v1/holds/{committed['id']}/commit")
    await asyncio.sleep(1.1)
    for hold, code in ((expired, "hold-expired"), (released, "hold-released"), (committed, "already-committed")):
        told = problem(await api.post(f"/v1/holds/{hold['id']}/extend", {"ttl_seconds": 5}), code)
        assert told.keys() == PLACE
    assert (await api.client.get(f"/v1/holds/{expired['id']}")).json()["state"] == "expired"


async def test_movement_refused(api: Api) -> None:
    """409 for shipping more than is committed, and for any other movement that the counters cannot bear."""
    sku = await api.stocked(5)
    for kind, more in (
        ("shipment", {}),
        ("cancel", {}),
        ("damage", {"quantity": 6}),
        ("transfer", {"to_pool": "eu", "quantity": 6}),
    ):
        body = {"type": kind, "sku": sku, "quantity": 1, **more}
        assert problem(await api.post("/v1/movements", body, key="new"), "movement-refused").keys() == PLACE
    assert (await api.stock(sku))["on_hand"] == 5


async def test_policy_refused(api: Api) -> None:
    """409 for moving a SKU with stock to another partition key."""
    sku = await api.stocked(5)
    refused = await api.client.patch(f"/v1/skus/{sku}", json={"partition_key": "drop"})
    assert problem(refused, "policy-refused").keys() == PLACE


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size", [65_537, 200_000, 3_000_000])
@pytest.mark.parametrize("path", ["/v1/holds", "/v1/holds/hld_x/release"])
async def test_body_too_large(api: Api, path: str, size: int, chunked: bool) -> None:
    """413 for a body beyond 64 KiB, announced or in chunks, and the connection stays usable."""

    async def pieces() -> Any:
        for at in range(0, size, 10_000):
            yield b" " * min(10_000, size - at)

    content = pieces() if chunked else b" " * size
    headers = {"Content-Type": "application/json"}
    assert problem(await api.post(path, key="new", content=content, headers=headers), "body-too-large") == {}


async def test_the_largest_body_is_read(api: Api) -> None:
    """64 KiB exactly is not too large."""
    sku = await api.stocked()
    body = b'{"lines":[{"sku":"%s","quantity":1}]}' % sku.encode()
    headers = {"Content-Type": "application/json"}
    answer = await api.post("/v1/holds", key="new", content=body + b" " * (65_536 - len(body)), headers=headers)
    assert answer.status_code == 201


@pytest.mark.parametrize(
    "headers",
    [{"Content-Type": "text/plain"}, {"Content-Type": "application/x-www-form-urlencoded"},
     {"Content-Type": "application/jsonx"},
     {"Content-Type": ""}, {"Content-Type": "application/json; charset=latin-1"},
     {"Content-Type": "application/merge-patch+json"},
     {"Content-Type": "application/json", "Content-Encoding": "gzip"}],
)  # fmt: skip
async def test_unsupported_media_type(api: Api, headers: dict[str, str]) -> None:
    """415 for a body that is not plain JSON, before it is read as JSON."""
    for path in ("/v1/holds", "/v1/holds/hld_x/release"):
        refused = await api.post(path, key="new", content=b"{", headers=headers)
        assert problem(refused, "unsupported-media-type") == {}


@pytest.mark.parametrize(
    "media",
    [
        "application/json",
        "application/json; charset=utf-8",
        'Application/JSON;charset="UTF-8"',
        "application/json;v=1",
        None,
    ],
)
async def test_supported_media_types(api: Api, media: str | None) -> None:
    """JSON by any spelling; a type is needed only where there is a body."""
    hold = await api.held(await api.stocked())
    headers = {} if media is None else {"Content-Type": media}
    answer = await api.post(f"/v1/holds/{hold['id']}/release", content=b'{"reason":"x"}', headers=headers)
    assert answer.status_code == 200


async def test_an_empty_body_needs_no_media_type(api: Api) -> None:
    """No body has no type that could be wrong."""
    hold = await api.held(await api.stocked())
    answer = await api.post(f"/v1/holds/{hold['id']}/release", headers={"Content-Type": "text/plain"})
    assert answer.status_code == 200


async def test_idempotency_key_reused(api: Api) -> None:
    """422 for another payload under a known key, with no effect."""
    sku = await api.stocked()
    body = {"lines": [{"sku": sku, "quantity": 1}]}
    assert (await api.post("/v1/holds", body, key="reused-1")).status_code == 201
    body["lines"][0]["quantity"] = 2
    assert problem(await api.post("/v1/holds", body, key="reused-1"), "idempotency-key-reused") == {}
    assert (await api.stock(sku))["held"] == 1


async def test_invalid_request_names_fields(api: Api) -> None:
    """422 with `errors`, each a field and a message, from body, path, query and policy alike."""
    body = {"lines": [{"sku": "a", "quantity": 0}]}
    told = problem(await api.post("/v1/holds", body, key="new"), "invalid-request")
    assert [sorted(error) for error in told["errors"]] == [["field", "message"]]
    assert told["errors"][0]["field"] == "lines[0].quantity"
    told = problem(await api.client.get("/v1/ledger", params={"limit": "0"}), "invalid-request")
    assert told["errors"][0]["field"] == "limit"
    sku = await api.stocked(5, hold_ttl_seconds_max=60)
    body = {"lines": [{"sku": sku, "quantity": 1}], "ttl_seconds": 61}
    told = problem(await api.post("/v1/holds", body, key="new"), "invalid-request")
    assert told["errors"][0]["field"] == "ttl_seconds"


async def test_no_such_route(api: Api) -> None:
    """404 and 405 are problems too; 405 says what would be allowed."""
    for path in (
        "/",
        "/v1",
        "/v1/nothing",
        "/v1/holds/",
        "/v1/holds/a/b/commit",
        "/v1/movements/1",
        "/docs",
        "/v2/holds",
    ):
        assert problem(await api.client.get(path), "not-found") == {}
    for method, path, allow in (
        ("DELETE", "/v1/holds", "GET, HEAD, POST"),
        ("GET", "/v1/movements", "POST"),
        ("POST", "/v1/skus/a", "GET, HEAD, PATCH, PUT"),
        ("DELETE", "/v1/holds/hld_x", "GET, HEAD"),
        ("GET", "/v1/holds/hld_x/commit", "POST"),
        ("OPTIONS", "/healthz", "GET, HEAD"),
    ):
        answer = await api.client.request(method, path)
        assert problem(answer, "method-not-allowed") == {}
        assert answer.headers["allow"] == allow
