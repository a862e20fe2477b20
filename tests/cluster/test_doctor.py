"""What `flashhold doctor` sees of a cluster: every node, because any replica may be the next primary."""

import asyncio

import pytest

from flashhold.engine.address import cluster_of
from flashhold.services.store_check import check
from tests.cluster.nodes import LocalCluster

pytestmark = pytest.mark.slow


def found(cluster: LocalCluster, database_url: str) -> list[tuple[str, str, str]]:
    """All but that the tests' Postgres does without fsync."""
    findings = check(cluster.url, database_url).findings
    return [(one.store, one.setting, one.value) for one in findings if one.store != "postgres"]


async def test_every_node_is_looked_at(cluster: LocalCluster, database_url: str) -> None:
    """A whole cluster is sound; a replica's own unsafe setting is named with the replica, a dead node as away, and its
    primary as one without a replica."""
    place = cluster_of(cluster.url, "p00")
    assert place is not None
    async with asyncio.timeout(20):
        while len(await asyncio.to_thread(place.all_now)) < len(cluster.nodes):
            cluster.primary_of("p00").ask("SET", "{p00}:x", 1)  # a replica that was sent nothing yet is not named
            await asyncio.sleep(0.1)
    assert await asyncio.to_thread(found, cluster, database_url) == []
    primary = cluster.primary_of("p00")
    replica = cluster.replica_of(primary)
    name = f"redis 127.0.0.1:{replica.port}"
    replica.ask("CONFIG", "SET", "no-appendfsync-on-rewrite", "yes")
    replica.ask("CONFIG", "SET", "cluster-require-full-coverage", "yes")
    assert await asyncio.to_thread(found, cluster, database_url) == [
        (name, "cluster-require-full-coverage", "yes"),
        (name, "no-appendfsync-on-rewrite", "yes"),
    ]
    replica.kill()
    assert sorted(await asyncio.to_thread(found, cluster, database_url)) == sorted(
        [(name, "node", "away"), (f"redis 127.0.0.1:{primary.port}", "connected_slaves", "0")]
    )
