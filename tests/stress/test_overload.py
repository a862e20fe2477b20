"""Five times the load that can be served, over real connections.

The store is made slow by a proxy, so that what can be served is about 150 holds a second on every machine, and a crowd
of one process can be five times as many. The true bars are those of `make bench ONLY=stress`, on a quiet machine.
"""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from loadtests import http_load, open_load
from tests.engine.proxy import Proxy
from tests.http.conftest import Api, running_api, valkey

pytestmark = pytest.mark.asyncio(loop_scope="module")

BATCH = 8
REPLY_SECONDS = 0.05
TIMES = 5
CONNECTIONS = 200
"""Enough for five times the load, and so few that even all of them at once are served within the reply's time-out."""
REFUSED_WITHIN_MS = 100
_SLACK_MS = 150
SERVED = 0.65
"""Of the peak, at least. Both with room for a machine of two cores that runs the crowd, the API, the proxy and the
stores, and what else there is."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(redis_servers: Callable[[str], str], module_database_url: str) -> AsyncIterator[Api]:
    """An API that gets eight holds decided every 50 ms."""
    async with (
        Proxy(valkey(redis_servers)) as proxy,
        running_api(proxy.url, module_database_url, batch_size_max=BATCH) as running,
    ):
        proxy.slow_s = REPLY_SECONDS
        yield running


async def peak(api: Api, sku: str) -> float:
    """Holds a second where nobody comes before he is served."""
    found = await http_load.run_apart(api.url, api.admin_key, sku, connections=3 * BATCH, seconds=1.5, core=None)
    assert set(found.statuses) == {201}
    return found.per_second(201)


async def test_five_times_the_load(api: Api) -> None:
    """What can be served is served; the rest is told at once that it is too much; nobody hears nothing."""
    sku = await api.stocked(1_000_000)
    best = await peak(api, sku)
    assert best > 50
    crowd = await open_load.run_apart(
        api.url, api.admin_key, sku, per_second=TIMES * best, connections=CONNECTIONS, seconds=2.5, core=None
    )
    assert crowd.offered > 0.9 * TIMES * best * crowd.seconds
    assert set(crowd.statuses) == {201, 429}, (crowd.statuses, crowd.example)
    assert crowd.lost == 0
    assert crowd.per_second(201) >= SERVED * best
    assert crowd.statuses[429] > 2 * crowd.statuses[201]
    assert crowd.p99_ms[429] < REFUSED_WITHIN_MS + _SLACK_MS
    assert crowd.p99_ms[201] < 2_000, "the burst that was let in before it was a crowd, too"


async def test_a_refusal_is_a_problem_that_says_when_to_come_again(api: Api) -> None:
    """429 `overloaded` with Retry-After; it does not stick: the same key is served when the crowd has gone."""
    sku = await api.stocked(1_000_000)
    body = {"lines": [{"sku": sku, "quantity": 1}]}
    crowd = asyncio.create_task(
        open_load.run_apart(
            api.url, api.admin_key, sku, per_second=700, connections=CONNECTIONS, seconds=1.5, core=None
        )
    )
    told, number = await api.post("/v1/holds", body, key="crowded-0"), 0
    while told.status_code == 201 and not crowd.done():
        number += 1
        told = await api.post("/v1/holds", body, key=f"crowded-{number}")
    await crowd
    assert (told.status_code, told.json()["code"], told.headers["retry-after"]) == (429, "overloaded", "1")
    assert told.headers["content-type"] == "application/problem+json"
    again = await api.post("/v1/holds", body, key=f"crowded-{number}")
    assert (again.status_code, again.headers["idempotency-replayed"]) == (201, "false")
