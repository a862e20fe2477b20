"""Who may do what, by key and scope, and how the table of keys is kept."""

import asyncio
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import pytest

from flashhold.domain.errors import LedgerUnavailable
from flashhold.http import auth
from flashhold.http.auth import Caller, KeyTable, scope_bits
from flashhold.http.problems import Problem
from flashhold.ledger.api_keys import key_id, new_key, register, revoke
from tests.http.conftest import Api


class Ledger:
    """A table of keys that counts its readings and can be away."""

    def __init__(self, **keys: str) -> None:
        self.keys = {
            name: Caller(name, sha256(secret.encode()).digest(), scope_bits(["read"])) for name, secret in keys.items()
        }
        self.readings = 0
        self.away = False

    async def load(self) -> Mapping[str, Caller]:
        self.readings += 1
        await asyncio.sleep(0)
        if self.away:
            raise LedgerUnavailable
        return dict(self.keys)


async def code_of(table: KeyTable, token: str, needs: int = auth.MAY_READ_STOCK) -> str:
    """What a check ends with: "ok" or the problem's code."""
    try:
        await table.check(f"Bearer {token}".encode(), needs)
    except Problem as problem:
        return problem.code
    return "ok"


async def test_the_secret_is_what_counts() -> None:
    """Only the whole token of a known id passes; the scheme's name is no matter of case."""
    table = KeyTable(Ledger(k1="a_b-c").load)
    await table.refresh()
    assert await code_of(table, "fh_k1_a_b-c") == "ok"
    for wrong in (
        "fh_k1_a_b",
        "fh_k1_a_b-c2",
        "fh_k1_",
        "fh_k1",
        "fh__a_b-c",
        "xx_k1_a_b-c",
        "k1_a_b-c",
        "",
        "fh_k1_\xff",
    ):
        assert await code_of(table, wrong) == "unauthenticated", wrong
    assert (await table.check(b"bEaReR fh_k1_a_b-c", auth.MAY_READ_STOCK)).id == "k1"
    with pytest.raises(Problem, match="unauthenticated"):
        await table.check(b"Basic fh_k1_a_b-c", auth.MAY_READ_STOCK)


async def test_a_scope_is_needed() -> None:
    """403 for a key without any of the scopes."""
    table = KeyTable(Ledger(k1="s").load)
    assert await code_of(table, "fh_k1_s", auth.MAY_HOLD) == "forbidden"


async def test_a_new_key_is_found_at_once() -> None:
    """An id that the table doesn't know makes it read again before the key is refused."""
    ledger = Ledger(k1="s")
    table = KeyTable(ledger.load)
    await table.refresh()
    ledger.keys |= Ledger(k2="t").keys
    assert await code_of(table, "fh_k2_t") == "ok"


async def test_made_up_keys_share_one_reading() -> None:
    """A hundred unknown ids at once cost one query, and a wrong secret none."""
    ledger = Ledger(k1="s")
    table = KeyTable(ledger.load)
    await table.refresh()
    codes = await asyncio.gather(*(code_of(table, f"fh_made{i}_x") for i in range(100)))
    assert set(codes) == {"unauthenticated"}
    assert ledger.readings == 2
    assert await code_of(table, "fh_k1_wrong") == "unauthenticated"
    assert ledger.readings == 2


async def test_the_last_table_stays_while_the_ledger_is_away() -> None:
    """Known keys go on working; before any reading a key is neither valid nor invalid, so the answer is 503."""
    ledger = Ledger(k1="s")
    table = KeyTable(ledger.load)
    ledger.away = True
    assert await code_of(table, "fh_k1_s") == "store-unavailable"
    ledger.away = False
    await table.refresh()
    ledger.away = True
    await table.refresh()
    assert await code_of(table, "fh_k1_s") == "ok"


READS = {
    "/v1/holds": "holds stock read", "/v1/holds/hld_x": "holds stock read", "/v1/availability?sku=a": "holds read",
    "/v1/skus/a": "stock read", "/v1/ledger": "stock read",
}  # fmt: skip
WRITES = {
    "POST /v1/holds": "holds", "POST /v1/holds/hld_x/commit": "holds", "POST /v1/holds/hld_x/release": "holds",
    "POST /v1/holds/hld_x/extend": "holds", "POST /v1/holds/hld_x/amend": "holds", "POST /v1/movements": "stock",
    "PUT /v1/skus/a": "stock", "PATCH /v1/skus/a": "stock",
}  # fmt: skip


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("scope", ["holds", "stock", "read", "admin"])
async def test_what_each_scope_may(api: Api, scope: str) -> None:
    """The contract's table of scopes, cell by cell; admin may everything."""
    headers: Any = api.key(scope)
    allowed = {f"GET {path}": scopes for path, scopes in READS.items()} | WRITES
    for route, scopes in allowed.items():
        method, path = route.split(" ")
        answer = await api.client.request(method, path, headers=headers, content=b"")
        may = scope == "admin" or scope in scopes.split()
        assert (answer.status_code != 403) is may, (route, answer.text)


@pytest.mark.asyncio(loop_scope="module")
async def test_several_scopes_add_up(api: Api) -> None:
    """A key with two scopes may what either may."""
    both = api.key("holds", "read")
    assert (await api.client.get("/v1/ledger", headers=both)).status_code == 200
    assert (await api.post("/v1/holds", {}, key="new", headers=both)).status_code == 422
    assert (await api.post("/v1/movements", {}, key="new", headers=both)).status_code == 403


@pytest.mark.asyncio(loop_scope="module")
async def test_operations_need_no_key(api: Api) -> None:
    """Health, readiness, metrics and the document are open by default."""
    for path in ("/healthz", "/readyz", "/metrics", "/openapi.json"):
        assert (await api.client.get(path, headers={"Authorization": ""})).status_code == 200


@pytest.mark.asyncio(loop_scope="module")
async def test_a_revoked_key_dies_within_five_seconds(api: Api) -> None:
    """A revoked key works no more as soon as the table has been read again."""
    token = new_key()
    register(api.settings.database_url, token, ["read"])
    headers = {"Authorization": f"Bearer {token}"}
    assert (await api.client.get("/v1/holds", headers=headers)).status_code == 200
    await asyncio.to_thread(revoke, api.settings.database_url, key_id(token))
    async with asyncio.timeout(5):
        while (await api.client.get("/v1/holds", headers=headers)).status_code != 401:  # noqa: ASYNC110  it is elsewhere
            await asyncio.sleep(0.1)
