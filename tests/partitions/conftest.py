"""An API and a worker of six partitions on one server, and what the tests ask them most."""

import asyncio
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import pytest_asyncio

from flashhold.domain.places import partition_names, place_of
from flashhold.engine.engine import Engine
from flashhold.engine.options import EngineOptions
from flashhold.services.audit import Report, audit
from tests.http.conftest import Api, running_api

PARTITIONS = 6
NAMES = partition_names(PARTITIONS)


def skus_by_place(some: int = 1, *, tag: str = "") -> dict[str, list[str]]:
    """New SKUs, so many for each partition by their own names."""
    found: dict[str, list[str]] = {name: [] for name in NAMES}
    while any(len(skus) < some for skus in found.values()):
        sku = f"{tag}{uuid.uuid4().hex[:10]}"
        place = place_of(sku, NAMES)
        if len(found[place]) < some:
            found[place].append(sku)
    return found


@contextmanager
def worker_process(redis_url: str, database_url: str, **environ: str) -> Iterator[subprocess.Popen[bytes]]:
    """A `flashhold worker` of six partitions."""
    told = {"FLASHHOLD_REDIS_URL": redis_url, "FLASHHOLD_DATABASE_URL": database_url}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "flashhold", "worker"],
        env={**os.environ, **told, "FLASHHOLD_PARTITIONS": str(PARTITIONS), **environ},
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(30)


@pytest_asyncio.fixture
async def shop(one_redis_url: str, database_url: str) -> AsyncIterator[Api]:
    """An API of six partitions with its worker beside it."""
    with worker_process(one_redis_url, database_url):
        async with running_api(one_redis_url, database_url, partitions=PARTITIONS) as api:
            yield api


async def audits(api: Api) -> dict[str, Report]:
    """What an audit says of each partition, once the ledger has come to where its store stands."""
    found = {}
    for name in NAMES:
        options = EngineOptions(partition=name, partitions=PARTITIONS)
        async with await Engine.connect(api.settings.redis_url, options=options) as engine:
            found[name] = await audit(engine, api.settings.database_url)
    return found


async def ledger_of(api: Api, **filters: Any) -> list[dict[str, Any]]:
    """Every entry, read page by page."""
    items: list[dict[str, Any]] = []
    cursor = None
    while True:
        params = {**filters, "limit": 7, **({"cursor": cursor} if cursor else {})}
        page = (await api.client.get("/v1/ledger", params=params)).raise_for_status().json()
        items += page["items"]
        cursor = page["next_cursor"]
        if cursor is None or not page["items"]:
            return items


async def until(true: Callable[[], Any], what: str, seconds: float = 15) -> None:
    """Wait until it holds."""
    for _ in range(round(seconds / 0.1)):
        if await true():
            return
        await asyncio.sleep(0.1)
    pytest.fail(f"never came: {what}")
