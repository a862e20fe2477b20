"""The same shop on a real Redis Cluster: verbs, partition keys, commands, and a partition that loses its keys."""

import asyncio
from collections.abc import Iterator

import pytest

from flashhold.domain.places import place_of
from flashhold.engine.keys import partition_keys
from tests.cluster.nodes import LocalCluster, running_cluster
from tests.conftest import REDIS_BINARIES
from tests.http.conftest import running_api
from tests.partitions.conftest import NAMES, PARTITIONS, audits, skus_by_place, until, worker_process
from tests.partitions.test_losses import flashhold, trade

pytestmark = pytest.mark.slow


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    """Of the kind of server that every machine has."""
    with running_cluster(next(one for kind, one in REDIS_BINARIES.items() if kind.startswith("valkey"))) as made:
        yield made


async def test_a_shop_on_a_cluster(cluster: LocalCluster, database_url: str) -> None:
    """Each partition sells, a drop of one key is one hold, what a partition loses is rebuilt, all audits are clean."""
    settings = {"partitions": PARTITIONS, "durability": "replica", "readiness_refresh_ms": 100}
    with worker_process(cluster.url, database_url, FLASHHOLD_DURABILITY="replica"):
        async with running_api(cluster.url, database_url, **settings) as api:
            held = {place: await trade(api, some[0]) for place, some in skus_by_place().items()}
            assert {place: hold["partition"] for place, hold in held.items()} == {name: name for name in NAMES}
            drop = [some[0] for some in skus_by_place().values()]
            for sku in drop:
                (await api.client.put(f"/v1/skus/{sku}", json={"partition_key": "drop"})).raise_for_status()
                receipt = {"type": "receipt", "sku": sku, "quantity": 5}
                (await api.post("/v1/movements", receipt, key="new")).raise_for_status()
            cart = await api.post("/v1/holds", {"lines": [{"sku": sku, "quantity": 1} for sku in drop]}, key="new")
            assert (cart.status_code, cart.json()["partition"]) == (201, place_of("drop", NAMES))
            status, report = await asyncio.to_thread(flashhold, api, "audit", "--json")
            assert (status, report["clean"], len(report["partitions"])) == (0, True, PARTITIONS)
            cluster.primary_of("p03").ask("DEL", *partition_keys("p03"))

            async def rebuilt() -> bool:
                said = await api.client.get("/readyz")
                return said.status_code == 200 and "p03" in said.json().get("restored", {})

            await until(rebuilt, "p03 rebuilt by the worker", 30)
            released = await api.post(f"/v1/holds/{held['p03']['id']}/release")
            assert (released.status_code, released.json()["epoch"]) == (200, 2)
            status, report = await asyncio.to_thread(flashhold, api, "restore", "--json", "--yes")
            assert (status, {one["found"] for one in report["partitions"]}) == (0, {"whole"})
            reports = await audits(api)
            assert all(one.clean for one in reports.values()), reports
