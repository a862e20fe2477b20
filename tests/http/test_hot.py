"""The thin path and FastAPI answer alike, and each takes what is its own."""

import asyncio
import json
import uuid
from collections import Counter
from typing import Any

import httpx
import pytest

from flashhold.http import responses
from flashhold.http.front import Front
from tests.http.conftest import Api

pytestmark = pytest.mark.asyncio(loop_scope="module")

COLD = [("X-Twice", "1"), ("X-Twice", "2")]
"""A repeated header is in order, but too unusual for the thin path."""


@pytest.fixture
def through_fastapi(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts the paths that went through FastAPI."""
    seen: Counter[str] = Counter()
    original = Front.__call__

    async def counting(self: Front, scope: Any, receive: Any, send: Any) -> None:
        seen[scope.get("path", "")] += 1
        await original(self, scope, receive, send)

    monkeypatch.setattr(Front, "__call__", counting)
    return seen


def told(answer: httpx.Response) -> tuple[int, bytes, dict[str, str]]:
    headers = {name: value for name, value in answer.headers.items() if name != "date"}
    return answer.status_code, answer.content, headers


async def both_ways(api: Api, path: str, content: bytes, key: str, seen: Counter[str]) -> list[tuple[Any, ...]]:
    """The answers of the thin path and of FastAPI to the same request, once each has been seen to take its own."""
    head = [("Idempotency-Key", key), ("Content-Type", "application/json")]
    before = seen.total()
    hot = await api.client.post(path, content=content, headers=head)
    assert seen.total() == before, "not on the thin path"
    cold = await api.client.post(path, content=content, headers=[*head, *COLD])
    assert seen.total() == before + 1, "not through FastAPI"
    return [told(hot), told(cold)]


async def test_both_ways_answer_alike(api: Api, through_fastapi: Counter[str]) -> None:
    """Accepted, refused, invalid and broken requests get the same bytes and headers on either way."""
    sku = await api.stocked(50)
    held = await api.held(sku, 2)
    gone = await api.held(sku)
    await api.post(f"/v1/holds/{gone['id']}/release")
    line = {"sku": sku, "quantity": 1}
    cases: list[tuple[str, bytes, int]] = [
        ("/v1/holds", json.dumps({"lines": [line], "metadata": {"a": "b:c"}}).encode(), 201),
        ("/v1/holds", json.dumps({"lines": [{**line, "quantity": 100}]}).encode(), 409),
        ("/v1/holds", json.dumps({"lines": [{**line, "sku": "nobody"}]}).encode(), 404),
        ("/v1/holds", b'{"lines":[]}', 422),
        ("/v1/holds", b'{"lines":[],"lines":[]}', 400),
        ("/v1/holds", b"", 422),
        ("/v1/holds", b"\xff", 400),
        ("/v1/movements", json.dumps({"type": "receipt", **line}).encode(), 201),
        ("/v1/movements", json.dumps({"type": "shipment", **line}).encode(), 409),
        (f"/v1/holds/{held['id']}/commit", b'{"reference":"o"}', 200),
        (f"/v1/holds/{gone['id']}/commit", b"{}", 409),
        ("/v1/holds/hld_x/commit", b"{}", 404),
        ("/v1/holds/hld_x/commit", b'{"lines":[]}', 422),
    ]
    for path, content, status in cases:
        key = uuid.uuid4().hex
        # Once before, so that both are repetitions: a first answer and a repeated one differ in a header.
        head = {"Idempotency-Key": key, "Content-Type": "application/json"}
        first = await api.client.post(path, content=content, headers=head)
        hot, cold = await both_ways(api, path, content, key, through_fastapi)
        assert hot == cold
        assert (first.status_code, first.content) == (hot[0], hot[1])
        assert first.status_code == status, (path, content)


@pytest.mark.parametrize(
    "headers",
    [{"Content-Type": "application/json; charset=utf-8"}, {"Content-Type": "text/plain"},
     {"Content-Encoding": "gzip"}, {"Authorization": ""}, {"Authorization": "Bearer fh_0123456789ab_x"},
     {"Idempotency-Key": ""}, {"Connection": "close"}],
)  # fmt: skip
async def test_whatever_is_not_plain_goes_through_fastapi(
    api: Api, through_fastapi: Counter[str], headers: dict[str, str]
) -> None:
    """The thin path leaves everything that it does not check itself to the other one."""
    plain = {"Content-Type": "application/json", "Idempotency-Key": uuid.uuid4().hex}
    await api.client.post("/v1/holds", content=b'{"lines":[]}', headers={**plain, **headers})
    assert through_fastapi["/v1/holds"] == 1


@pytest.mark.parametrize(
    ("path", "scope"), [("/v1/holds", "stock"), ("/v1/holds/h/commit", "read"), ("/v1/movements", "holds")]
)
async def test_the_thin_path_knows_scopes(api: Api, through_fastapi: Counter[str], path: str, scope: str) -> None:
    """A key without the scope is told so, though everything else is plain."""
    headers = {**api.key(scope), "Idempotency-Key": uuid.uuid4().hex}
    for _ in range(2):  # the second time the table knows the key
        answer = await api.client.post(path, json={"lines": []}, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert through_fastapi[path] == 2


@pytest.mark.parametrize("path", ["/v1/holds?x=1", "/v1/holds/%2F/commit", "/v1/holds//commit", "/v1/holds/a/b/commit"])
async def test_odd_paths_go_through_fastapi(api: Api, through_fastapi: Counter[str], path: str) -> None:
    """A query, an escape or an empty name is nothing for the thin path."""
    await api.client.post(f"{api.url}{path}", json={}, headers={"Idempotency-Key": "k"})
    assert through_fastapi.total() == 1


async def test_a_chunked_body_goes_through_fastapi(api: Api, through_fastapi: Counter[str]) -> None:
    """A body whose length is not announced is counted while it comes."""
    sku = await api.stocked()
    seen = through_fastapi.total()

    async def pieces() -> Any:
        yield b'{"lines":[{"sku":"%s",' % sku.encode()
        yield b'"quantity":1}]}'

    answer = await api.post("/v1/holds", key="new", content=pieces(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 201
    assert through_fastapi.total() == seen + 1


@pytest.mark.parametrize("hot", [True, False])
async def test_a_fault_of_ours_is_a_problem_without_internals(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, hot: bool
) -> None:
    """500 internal-error on either way, the fault only in the log, and the connection goes on."""
    sku = await api.stocked()

    def broken(_: Any) -> bytes:
        raise RuntimeError("a secret of the inside")

    headers = [("Idempotency-Key", uuid.uuid4().hex), *([] if hot else COLD)]
    with monkeypatch.context() as broken_for_now:
        broken_for_now.setattr(responses, "hold_body", broken)
        answer = await api.client.post("/v1/holds", json={"lines": [{"sku": sku, "quantity": 1}]}, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (500, "internal-error")
    assert answer.headers["content-type"] == "application/problem+json"
    assert "secret" not in answer.text
    assert "a secret of the inside" in caplog.text
    again = await api.client.post("/v1/holds", json={"lines": [{"sku": sku, "quantity": 1}]}, headers=headers)
    assert (again.status_code, again.headers["idempotency-replayed"]) == (201, "true")


async def test_a_client_that_leaves_while_its_hold_is_decided(api: Api) -> None:
    """The hold is made all the same, and the same key tells so later."""
    sku = await api.stocked(10)
    host, port = api.url.removeprefix("http://").split(":")
    body = json.dumps({"lines": [{"sku": sku, "quantity": 1}]}).encode()
    keys = [uuid.uuid4().hex for _ in range(10)]
    for key in keys:
        _, writer = await asyncio.open_connection(host, int(port))
        head = (
            f"POST /v1/holds HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.admin_key}\r\nIdempotency-Key: {key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()
    async with asyncio.timeout(5):
        while (await api.stock(sku))["held"] < 10:  # noqa: ASYNC110  it is decided elsewhere
            await asyncio.sleep(0.02)
    answers = [await api.client.post("/v1/holds", content=body, headers={"Idempotency-Key": key}) for key in keys]
    assert {answer.headers["idempotency-replayed"] for answer in answers} == {"true"}
    assert (await api.stock(sku))["held"] == 10
