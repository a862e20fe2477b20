"""Health, readiness, metrics, the document; and what is answered while a store is away."""

import asyncio
import uuid
from collections.abc import Callable
from typing import Any

import pytest
import redis
from sqlalchemy import text

from flashhold.domain.errors import Recovering
from flashhold.embedded.child import Child
from flashhold.engine.journal import Place
from flashhold.ledger.connect import connect_sync
from flashhold.ledger.reader import LedgerPlace
from flashhold.services.readiness import compare
from tests.http.conftest import Api, running_api, valkey

REDIS = Place("p00", 2, 10, "aa", 0)


@pytest.mark.parametrize(
    ("ledger", "fine"),
    [
        (None, True),
        (LedgerPlace("p00", 2, 10, "aa", None), True),
        (LedgerPlace("p00", 2, 7, "bb", None), True),
        (LedgerPlace("p00", 1, 99, "bb", None), True),
        (LedgerPlace("p00", 2, 10, "bb", None), False),
        (LedgerPlace("p00", 2, 11, "aa", None), False),
        (LedgerPlace("p00", 3, 1, "aa", None), False),
        (LedgerPlace("p00", 2, 7, "bb", "a fork"), False),
    ],
)
def test_comparing_places(ledger: LedgerPlace | None, fine: bool) -> None:
    """Redis may be beyond the ledger, never behind it, never beside it, and not where its writer has stopped."""
    assert (compare(REDIS, ledger) is None) is fine


async def until(api: Api, status: int, path: str = "/readyz", seconds: float = 10) -> dict[str, Any]:
    """Wait for a status; the body that came with it."""
    async with asyncio.timeout(seconds):
        while True:
            answer = await api.client.get(path)
            if answer.status_code == status:
                told: dict[str, Any] = answer.json()
                return told
            await asyncio.sleep(0.05)


async def test_ready_says_what_is_checked(one_redis_url: str, database_url: str) -> None:
    """200 with every check named, and metrics that count by route and status."""
    async with running_api(one_redis_url, database_url) as api:
        assert await until(api, 200) == {"ready": True, "checks": {"redis": "ok", "ledger": "ok", "place": "ok"}}
        sku = await api.stocked()
        await api.held(sku)
        text = (await api.client.get("/metrics")).text
        assert 'flashhold_http_request_seconds_count{route="hold",status="201"} 1.0' in text
        assert 'route="put_policy"' not in text
        async with asyncio.timeout(5):
            while "flashhold_ready 1.0" not in text:
                await asyncio.sleep(0.1)
                text = (await api.client.get("/metrics")).text


async def test_closed_operations(one_redis_url: str, database_url: str) -> None:
    """A setting closes metrics and the document, and leaves health and readiness open."""
    async with running_api(one_redis_url, database_url, public_operations=False) as api:
        for path, status in (("/healthz", 200), ("/readyz", 200), ("/metrics", 401), ("/openapi.json", 401)):
            assert (await api.client.get(path, headers={"Authorization": ""})).status_code == status
        for scope, status in (("read", 200), ("holds", 403)):
            assert (await api.client.get("/metrics", headers=api.key(scope))).status_code == status


async def test_redis_away_and_back(start_redis: Callable[..., tuple[Child, str]], database_url: str) -> None:
    """Without Redis: 503 with Retry-After and a readiness that says so; with it again: the same key acts once."""
    child, url = start_redis()
    async with running_api(url, database_url, reply_timeout_ms=300) as api:
        sku = await api.stocked(5)
        child.stop(patience_s=10)
        key, body = uuid.uuid4().hex, {"lines": [{"sku": sku, "quantity": 1}]}
        answer = await api.post("/v1/holds", body, key=key)
        assert (answer.status_code, answer.json()["code"]) == (503, "store-unavailable")
        assert answer.headers["retry-after"] == "1"
        assert "idempotency-replayed" not in answer.headers
        told = await until(api, 503)
        assert (told["ready"], told["code"]) == (False, "store-unavailable")
        assert told["checks"]["redis"] != "ok"
        assert (await api.client.get("/healthz")).status_code == 200
        assert (await api.client.get("/v1/availability", params={"sku": sku})).status_code == 503
        child.start(patience_s=30)
        await until(api, 200)
        assert (await api.post("/v1/holds", body, key=key)).status_code == 201
        assert (await api.stock(sku))["held"] == 1


async def test_an_emptied_redis_sells_nothing(one_redis_url: str, database_url: str) -> None:
    """A Redis that has lost what it showed is not sold from: 503 recovering, and readiness says why."""
    async with running_api(one_redis_url, database_url) as api:
        sku = await api.stocked(5)
        with redis.Redis.from_url(one_redis_url) as client:
            client.flushall()
        shown = await api.client.get("/v1/availability", params={"sku": "never-shown"})
        assert (shown.status_code, shown.json()["code"]) == (503, "recovering"), "what is lost is not unknown"
        answer = await api.post("/v1/holds", {"lines": [{"sku": sku, "quantity": 1}]}, key="new")
        assert (answer.status_code, answer.json()["code"]) == (503, "recovering")
        assert answer.headers["retry-after"] == "1"
        # Nor is it taken for a new one a moment later, though the ledger is as empty.
        await until(api, 503)
        await asyncio.sleep(1)
        assert (await api.client.get("/readyz")).json()["code"] == "recovering"


async def test_too_many_waiting(one_redis_url: str, database_url: str) -> None:
    """429 with Retry-After when more commands wait than may; each is either accepted or refused, none lost."""
    async with running_api(one_redis_url, database_url, waiting_max=1) as api:
        sku = await api.stocked(1000)
        body = {"lines": [{"sku": sku, "quantity": 1}]}
        answers = await asyncio.gather(*(api.post("/v1/holds", body, key="new") for _ in range(100)))
        overloaded = [answer for answer in answers if answer.status_code == 429]
        assert {answer.status_code for answer in answers} == {201, 429}
        assert all(answer.json()["code"] == "overloaded" for answer in overloaded)
        assert all(answer.headers["retry-after"] == "1" for answer in overloaded)
        assert (await api.stock(sku))["held"] == 100 - len(overloaded)


async def test_a_ledger_ahead_of_redis_closes_the_door(redis_servers: Callable[[str], str], database_url: str) -> None:
    """A Redis behind the ledger at start decides nothing: an old backup must not sell again what is sold."""
    row = "INSERT INTO partitions VALUES ('p00', 1, 50, 'aa', '0-1', 1, NULL, now(), NULL, now())"
    engine = connect_sync(database_url)
    with engine.begin() as connection:
        columns = connection.execute(
            text("SELECT count(*) FROM information_schema.columns WHERE table_name='partitions'")
        )
        extra = columns.scalar_one() - 10
        connection.execute(text(row if not extra else row[:-1] + ", now()" * extra + ")"))
    engine.dispose()
    with pytest.raises(TimeoutError, match="recovering"):
        async with running_api(valkey(redis_servers), database_url, patience_seconds=2):
            raise AssertionError("it opened")


def test_recovering_is_an_accident_with_words() -> None:
    """The reason is the default text of its class where none is given."""
    assert "ledger" in str(Recovering())
